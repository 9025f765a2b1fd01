"""What a scope grants, and that nothing grants more than its author wrote (wire-protocol 2.3)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime_runs.access.scopes import MOST_SCOPES, Grant, Scopes, check_scopes, parse
from realtime_runs.exceptions import InvalidOption

RUN = Grant("read", "runs", "run_1")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("read:runs:run_1", RUN),
        ("read:runs", RUN),
        ("read:runs", Grant("read", "runs")),
        ("*:runs:run_1", RUN),
        ("*:runs", RUN),
        ("read:all", RUN),
        ("read:all", Grant("read", "tags")),
        ("*:all", RUN),
        ("admin", RUN),
        ("read:tags:user:1:2", Grant("read", "tags", "user:1:2")),
        ("read:tags: a ", Grant("read", "tags", " a ")),
        ("read:tags:*", Grant("read", "tags", "*")),
        ("trigger:tasks:a/b:c", Grant("trigger", "tasks", "a/b:c")),
    ],
)
def test_a_scope_grants_its_action_on_what_it_names(text, wanted):
    assert Scopes([text]).allow(wanted)
    assert Scopes(["write:sessions:x", text]).allow(wanted)


ALMOST = [
    "", ":", "::", ":::", "read", "read:", "read::", "read:runs:", "read::run_1", ":runs:run_1", "::run_1",
    "*", "*:", "*:*", "read:*", "read:*:run_1", "read:runs:*", "read:runs:run_*", "read:runs:run_11", "read:runs:run_",
    "READ:runs:run_1", "read:RUNS:run_1", "read:runs:RUN_1", "read:run:run_1", "read:runs:run_1 ", " read:runs:run_1",
    "read :runs:run_1", "read:runs: run_1", "read:runs:run_1\0", "read:runs\0", "read:runs:run_1\n", "read:runs:run_1:",
    "read:runs::run_1", "read:runs,tags", "read:runs:run_2,run_1", "write:runs:run_1", "write:runs", "trigger:runs",
    "read:tags:run_1", "read:batch", "read:all:run_1", "read:ALL", "all", "Admin", "admin ", "admin:runs", "admin:all",
    "read;runs;run_1", "read：runs", "reаd:runs",  # a colon and an a of other alphabets
]  # fmt: skip


@pytest.mark.parametrize("text", ALMOST, ids=repr)
def test_what_only_looks_like_it_grants_nothing(text):
    assert not Scopes([text]).allow(RUN)
    assert not Scopes([text]).allow(Grant("read", "runs"))


def test_a_grant_of_one_is_none_of_all():
    assert not Scopes(["read:runs:run_1"]).allow(Grant("read", "runs"))


@pytest.mark.parametrize(
    "wanted", [Grant("read", "runs", ""), Grant("read", "runs", "None"), Grant("", ""), Grant("read", "")]
)
def test_no_scopes_grant_nothing(wanted):
    assert not Scopes([]).allow(wanted)
    assert not Scopes(ALMOST).allow(wanted)


# -- whatever is written

words = st.sampled_from(
    ["read", "write", "trigger", "*", "runs", "tags", "all", "admin", "a", "b", ":", "", "::", "None"]
)
texts = st.lists(words, max_size=5).map("".join) | st.lists(words, max_size=4).map(":".join) | st.text(max_size=8)
wishes = st.builds(Grant, words, words, st.none() | words | st.text(max_size=4))


@given(st.lists(texts, max_size=5), texts, wishes)
def test_another_scope_takes_nothing_away_and_one_less_adds_nothing(some, more, wanted):
    assert Scopes([*some, more]).allow(wanted) == (Scopes(some).allow(wanted) or Scopes([more]).allow(wanted))


@given(texts, wishes)
def test_what_is_granted_is_what_the_three_parts_say(text, wanted):
    action, _, rest = text.partition(":")
    type_, colon, id_ = rest.partition(":")
    fits = (
        action in (wanted.action, "*")
        and action != ""
        and (
            (type_ == "all" and not colon)
            or (type_ == wanted.type != "" and (not colon or (id_ != "" and id_ == wanted.id)))
        )
    )
    assert Scopes([text]).allow(wanted) == (text == "admin" or fits)


@given(st.sampled_from(["read", "write"]), st.sampled_from(["runs", "tags"]), st.text(min_size=1, max_size=20))
def test_an_id_is_everything_behind_the_second_colon(action, type_, id_):
    assert parse(f"{action}:{type_}:{id_}") == Grant(action, type_, id_)


# -- before they are signed


@pytest.mark.parametrize("text", ["read:runs", "read:runs:run_1", "admin", "write:sessions:x", "*:all"])
def test_scopes_with_a_meaning_may_be_signed(text):
    check_scopes([text] * MOST_SCOPES)


@pytest.mark.parametrize(
    "scopes",
    [[], ["read"], ["read:"], ["read:runs:"], [""], [5], [None], ["read:runs", ":"], ["read:runs"] * 101],
    ids=str,
)
def test_scopes_without_a_meaning_are_refused(scopes):
    with pytest.raises(InvalidOption, match="scope"):
        check_scopes(scopes)
