"""The front door of public tokens: realtime_runs.auth."""

import inspect
from datetime import timedelta

import pytest

from realtime_runs import auth
from realtime_runs.access.tokens import verify
from realtime_runs.exceptions import InvalidOption

MINUTE = 60


def scopes_of(text):
    return sorted(verify(text).scopes.texts)


@pytest.mark.parametrize(
    ("scopes", "texts"),
    [
        (["read:runs:run_1", "read:tags:user:1"], ["read:runs:run_1", "read:tags:user:1"]),
        ("read:runs", ["read:runs"]),
        (("read:runs" for _ in range(1)), ["read:runs"]),
        ({"read": {"runs": "run_1"}}, ["read:runs:run_1"]),
        ({"read": {"runs": ["run_1", "run_2"], "tags": True}}, ["read:runs:run_1", "read:runs:run_2", "read:tags"]),
        ({"write": {"runs": False, "tasks": "a"}, "read": {}}, ["write:tasks:a"]),
        (["admin"], ["admin"]),
    ],
    ids=range(7),
)
def test_a_token_has_the_scopes_that_were_asked_for(scopes, texts):
    assert scopes_of(auth.create_public_token(scopes)) == texts


@pytest.mark.parametrize(
    "scopes",
    [[], "", {}, {"read": {}}, {"read": {"runs": []}}, {"read": {"runs": ""}}, {"": {"runs": "a"}}, {"read": {"": True}},
     ["read"], ["read:runs:"], [5], ["read:runs", ""], ["read:runs"] * 101, [f"read:tags:{'x' * 100}"] * 100],
    ids=lambda scopes: str(scopes)[:40],
)  # fmt: skip
def test_scopes_that_no_token_can_have_are_refused(scopes):
    with pytest.raises(InvalidOption):
        auth.create_public_token(scopes)


def test_a_public_token_may_be_used_often_and_shows_everything_unless_told_otherwise():
    token = verify(auth.create_public_token("read:runs"))
    assert (token.is_single_use, token.skip_columns) == (False, frozenset())


@pytest.mark.parametrize("columns", ["payload", ["payload"], {"payload"}], ids=str)
def test_columns_are_left_out(columns):
    assert verify(auth.create_public_token("read:runs", skip_columns=columns)).skip_columns == {"payload"}


@pytest.mark.parametrize("task", ["a", ["a", "b/c:d"], ("a",)], ids=str)
def test_trigger_tokens_are_for_these_tasks_and_one_use(task):
    tasks = [task] if isinstance(task, str) else task
    single, batch = auth.create_trigger_public_token(task), auth.create_batch_trigger_public_token(task)
    assert scopes_of(single) == [f"trigger:tasks:{name}" for name in tasks]
    assert scopes_of(batch) == [f"batchTrigger:tasks:{name}" for name in tasks]
    assert verify(single).is_single_use
    assert verify(batch).is_single_use


CREATE = {
    "public": lambda **options: auth.create_public_token("read:runs", **options),
    "trigger": lambda **options: auth.create_trigger_public_token("a", **options),
    "batch": lambda **options: auth.create_batch_trigger_public_token("a", **options),
}
each_kind = pytest.mark.parametrize("create", CREATE.values(), ids=CREATE)


@pytest.mark.parametrize("name", ["create_trigger_public_token", "create_batch_trigger_public_token"])
def test_trigger_tokens_for_many_uses(name):
    assert not verify(getattr(auth, name)("a", multiple_use=True)).is_single_use


@pytest.mark.parametrize("task", ["", [], [""]], ids=str)
@pytest.mark.parametrize("name", ["create_trigger_public_token", "create_batch_trigger_public_token"])
def test_a_trigger_token_for_no_task_is_refused(name, task):
    with pytest.raises(InvalidOption):
        getattr(auth, name)(task)


@each_kind
def test_a_token_lives_for_a_quarter_of_an_hour_or_as_it_was_said(create):
    for options, seconds in [
        ({}, 15 * MINUTE),
        ({"expires_in": "1h"}, 60 * MINUTE),
        ({"expires_in": 90}, 90),
        ({"expires_in": timedelta(days=30)}, 30 * 24 * 60 * MINUTE),
    ]:
        left = verify(create(**options)).seconds_left
        assert seconds - 2 * MINUTE < left <= seconds


@each_kind
@pytest.mark.parametrize(
    "expires_in", [0, -1, "soon", "31 days", timedelta(days=31), None, True, float("nan")], ids=str
)
def test_a_life_that_no_token_can_have_is_refused(create, expires_in):
    with pytest.raises(InvalidOption):
        create(expires_in=expires_in)


def test_each_public_name_says_what_it_does():
    assert all(inspect.getdoc(getattr(auth, name)) for name in auth.__all__)
