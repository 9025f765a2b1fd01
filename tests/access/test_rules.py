"""What each route needs of a token: wire-protocol 2.3, as a table. The routes themselves: tests/wire."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime_runs.access import rules
from realtime_runs.access.principals import KeyHolder, TokenHolder
from realtime_runs.access.scopes import ADMIN, Scopes
from realtime_runs.access.tokens import PublicToken
from realtime_runs.exceptions import Forbidden, KeyNeeded
from realtime_runs.models import Run

FOREVER = 1e12
RUN = Run(id="run_1", task="job", tag_names=["a", "user:1"], batch_id="batch_1")
ALONE = Run(id="run_2", task="job", tag_names=[])
OF_RUN = ["read:runs:run_1", "read:runs", "read:tasks:job", "read:tasks", "read:tags:a", "read:tags:user:1", "read:tags", "read:batch:batch_1", "read:batch"]  # fmt: skip

# What is asked for; the sets of scopes of which each is enough; others that are not.
TABLE = {
    "trigger": (rules.trigger("job"), ["trigger:tasks:job", "trigger:tasks"], ["batchTrigger:tasks:job", "write:tasks:job", "trigger:runs"]),
    "batch": (rules.trigger_batch(["job", "else", "job"]), ["batchTrigger:tasks:job batchTrigger:tasks:else", "batchTrigger:tasks"], ["batchTrigger:tasks:job", "batchTrigger:batch", "trigger:tasks"]),
    "create batch": (rules.create_batch(["job", "else"]), ["batchTrigger:batch", "batchTrigger:tasks", "batchTrigger:tasks:job batchTrigger:tasks:else"], ["batchTrigger:tasks:job", "batchTrigger:batch:batch_1", "write:batch"]),
    "create batch of unknown tasks": (rules.create_batch([]), ["batchTrigger:batch", "batchTrigger:tasks"], ["batchTrigger:tasks:job"]),
    "items": (rules.add_items("batch_1", ["job", "else"]), ["write:batch:batch_1", "write:batch", "batchTrigger:tasks:job batchTrigger:tasks:else"], ["batchTrigger:tasks:job", "write:batch:batch_2", "read:batch:batch_1", "batchTrigger:batch"]),
    "no items": (rules.add_items("batch_1", []), ["write:batch:batch_1"], ["batchTrigger:tasks", "batchTrigger:tasks:job"]),
    "run": (rules.read_run(RUN), OF_RUN, ["read:runs:run_2", "read:tasks:jo", "read:tags:user", "read:batch:batch_2", "write:runs:run_1", "trigger:tasks:job"]),
    "run alone": (rules.read_run(ALONE), ["read:runs:run_2"], ["read:batch:", "read:batch:None", "read:batch", "read:tags", "read:tags:"]),
    "known run": (rules.read_known_run("run_1", "job", ["a", "user:1"], "batch_1"), OF_RUN, ["read:runs:run_2"]),
    "child": (rules.make_child("run_1", RUN), OF_RUN, ["read:runs:run_2", "trigger:tasks:job"]),
    "child of nobody": (rules.make_child("run_3", None), ["read:runs:run_3", "read:runs"], ["read:tasks", "read:tags"]),
    "tags": (rules.follow_tags(["a", "b"]), ["read:runs", "read:tags", "read:tags:a", "read:tags:b"], ["read:runs:run_1", "read:tags:c", "read:tasks"]),
    "no tags": (rules.follow_tags([]), ["read:runs", "read:tags"], ["read:tags:a"]),
    "a batch": (rules.read_batch("batch_1"), ["read:batch:batch_1", "read:batch", "read:runs"], ["read:batch:batch_2", "read:runs:run_1", "write:batch:batch_1", "read:tasks"]),
    "list": (rules.list_runs(["job", "else"]), ["read:runs", "read:tasks", "read:tasks:job read:tasks:else"], ["read:tasks:job", "read:tags", "read:runs:run_1"]),
    "list of all tasks": (rules.list_runs([]), ["read:runs", "read:tasks"], ["read:tasks:job"]),
    "cancel": (rules.cancel("run_1", RUN), ["write:runs:run_1", "write:runs", "write:tasks:job", "write:tasks"], ["read:runs:run_1", "write:tags:a", "write:batch:batch_1"]),
    "cancel nobody": (rules.cancel("run_3", None), ["write:runs:run_3", "write:runs"], ["write:tasks", "write:runs:run_1"]),
    "reset": (rules.reset_key(), ["write:runs"], ["write:runs:run_1", "write:tasks", "read:runs"]),
    "send": (rules.send_input("run_1", RUN), ["write:inputStreams:run_1", "write:inputStreams"], ["write:runs:run_1", "read:inputStreams:run_1", "write:inputStreams:run_2"]),
    "complete": (rules.complete_wait_token("waitpoint_1"), ["write:waitpoints:waitpoint_1", "write:waitpoints"], ["write:waitpoints:waitpoint_2", "read:waitpoints"]),
}  # fmt: skip


def holder(scopes, expires_at=FOREVER):
    return TokenHolder(PublicToken(Scopes(scopes), expires_at, False, frozenset(), ""))


@pytest.mark.parametrize(("need", "enough", "too_little"), TABLE.values(), ids=TABLE)
def test_each_of_the_sets_of_scopes_is_enough_and_nothing_else(need, enough, too_little):
    for scopes in [*enough, ADMIN, "*:all"]:
        holder(scopes.split()).check(need)
    for scopes in [*too_little, "", "sessions:read"]:
        with pytest.raises(Forbidden):
            holder(scopes.split()).check(need)
    with pytest.raises(Forbidden):
        holder(too_little).check(need)  # all of them at once are not enough either


@pytest.mark.parametrize(
    "need", [rules.only_with_key("edit", RUN), rules.trigger_batch([]), rules.only_with_key("tokens")]
)
def test_what_is_for_keys_only_is_for_no_token(need):
    with pytest.raises(KeyNeeded):
        holder([ADMIN, "*:all", *OF_RUN]).check(need)
    KeyHolder().check(need)


@pytest.mark.parametrize("need", [need for need, _, _ in TABLE.values()])
def test_a_key_may_everything_and_an_expired_token_nothing(need):
    KeyHolder().check(need)
    assert not holder([ADMIN], expires_at=1).may(need)


scopes = st.sampled_from(
    sorted({scope for _, enough, _ in TABLE.values() for group in enough for scope in group.split()})
)
needs = st.sampled_from([need for need, _, _ in TABLE.values()])


@given(st.lists(scopes, max_size=4), scopes, needs)
def test_another_scope_never_takes_access_away(some, more, need):
    if holder(some).may(need):
        assert holder([*some, more]).may(need)


@given(st.lists(scopes, min_size=1, max_size=4), needs)
def test_a_scope_less_never_gives_access(some, need):
    if not holder(some).may(need):
        assert not any(holder(some[:gone] + some[gone + 1 :]).may(need) for gone in range(len(some)))


def test_a_token_sees_all_of_a_list_that_it_may_ask_for():
    runs = Run.objects.all()
    for principal in (holder([]), KeyHolder()):
        assert principal.visible(runs) is runs
        assert principal.sees_all
