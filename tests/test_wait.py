"""Waiting for a time and for wait tokens."""

import re
import time
from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from realtime_runs import runs, wait
from realtime_runs.engine import wait_tokens
from realtime_runs.engine.retention import prune
from realtime_runs.engine.upkeep import upkeep
from realtime_runs.exceptions import (
    InvalidOption,
    NotInsideRun,
    NotJson,
    TooLarge,
    WaitTokenNotFound,
)
from realtime_runs.live import reading
from realtime_runs.models import FromNow, Run, RunEvent, WaitToken, WaitTokenTag
from realtime_runs.testing import execute_queued_runs
from tests import tasks as t
from tests.conftest import EMBEDDED
from tests.in_process import worker_in_thread

pytestmark = pytest.mark.django_db

committing = pytest.mark.django_db(transaction=True)

TOKEN_TASKS = pytest.mark.parametrize("task", [t.wait_token, t.wait_token_sync])
TIMED_OUT = {"ok": False, "output": None}


@pytest.fixture
def in_thread(transactional_db, settings):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "BACKEND": EMBEDDED, "LEASE_SECONDS": 20}
    with worker_in_thread():
        yield


def output_of(run):
    found = runs.poll(run, interval=0.02, timeout=30)
    assert found.status == "COMPLETED", found.error
    return found.output


def statuses_of(run):
    return list(RunEvent.objects.filter(run=run.id).order_by("id").values_list("status", flat=True))


def wait_for_status(run, status, eventually):
    eventually(lambda: Run.objects.filter(pk=run.id, status=status).exists(), timeout=20)


def make_overdue(token):
    WaitToken.objects.filter(pk=token.id).update(timeout_at=FromNow(-1))


# -- tokens -----------------------------------------------------------------------------------------------------------


def test_a_new_token_waits_for_ten_minutes():
    token = wait.create_token(tags=["b", "a"])
    assert re.fullmatch("waitpoint_[0-9a-z]{28}", token.id)
    assert (token.status, token.tags, token.is_cached, token.output) == ("WAITING", ("a", "b"), False, None)
    assert token.timeout_at - token.created_at == timedelta(minutes=10)
    assert wait.retrieve_token(token.id) == token


def test_the_first_completion_counts():
    token = wait.create_token()
    completed = wait.complete_token(token, {"n": 1})
    assert (completed.status, completed.output, completed.completed_at is None) == ("COMPLETED", {"n": 1}, False)
    assert wait.complete_token(token.id, {"n": 2}) == completed


def test_of_many_completions_at_once_one_counts(in_thread, in_threads):
    token = wait.create_token()
    numbers = iter(range(4))
    found = in_threads(4, lambda: wait.complete_token(token, next(numbers)))
    assert len({each.output for each in found}) == 1


def test_after_its_time_a_token_cannot_be_completed():
    token = wait.create_token(timeout="1h")
    make_overdue(token)
    late = wait.complete_token(token, "late")
    assert (late.status, late.output, late.completed_at) == ("TIMED_OUT", None, None)


def test_a_token_that_is_looked_at_says_that_its_time_is_up():
    token = wait.create_token()
    make_overdue(token)
    assert wait.retrieve_token(token).is_timed_out


def test_upkeep_marks_what_nobody_looks_at():
    late, open_ = wait.create_token(), wait.create_token()
    make_overdue(late)
    upkeep(known_tasks=[])
    assert dict(WaitToken.objects.values_list("pk", "status")) == {late.id: "TIMED_OUT", open_.id: "WAITING"}


@committing
async def test_every_function_has_an_async_twin():
    token = await wait.acreate_token(timeout=60)
    await wait.acomplete_token(token, 7)
    assert (await wait.aretrieve_token(token)).output == 7
    assert [found.id async for found in await wait.alist_tokens()] == [token.id]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: wait.retrieve_token("waitpoint_missing"), WaitTokenNotFound),
        (lambda: wait.complete_token("waitpoint_missing"), WaitTokenNotFound),
        (lambda: wait.retrieve_token("\0"), NotJson),
        (lambda: wait.complete_token(wait.create_token(), float("nan")), NotJson),
        (lambda: wait.complete_token(wait.create_token(), "x" * 3 * 1024 * 1024), TooLarge),
        (lambda: wait.create_token(timeout="soon"), InvalidOption),
        (lambda: wait.create_token(timeout=-1), InvalidOption),
        (lambda: wait.create_token(tags=list("abcdefghijk")), TooLarge),
        (lambda: wait.create_token(idempotency_key="k" * 2049), InvalidOption),
        (lambda: wait.create_token(idempotency_key="\0"), NotJson),
        (lambda: wait.list_tokens(status="OPEN"), InvalidOption),
        (lambda: wait.list_tokens(after="waitpoint_missing"), InvalidOption),
        (lambda: wait.list_tokens(page_size=0), InvalidOption),
        (lambda: wait.list_tokens(tags="\0"), NotJson),
        (lambda: wait.for_(1), NotInsideRun),
        (lambda: wait.until(timezone.now()), NotInsideRun),
        (lambda: wait.for_token("waitpoint_missing"), NotInsideRun),
    ],
)
def test_bad_input_is_a_clear_error(call, error):
    with pytest.raises(error):
        call()


# -- idempotency keys -------------------------------------------------------------------------------------------------


def test_one_key_is_one_token():
    first = wait.create_token(idempotency_key="k", tags="t")
    again = wait.create_token(idempotency_key="k", timeout="2h")
    assert (again.id, again.is_cached, again.timeout_at) == (first.id, True, first.timeout_at)
    assert first.idempotency_key == "k"
    assert not wait.create_token(idempotency_key="other").is_cached


def test_a_key_brings_its_token_also_when_that_is_completed():
    wait.complete_token(wait.create_token(idempotency_key="k"), 1)
    assert wait.create_token(idempotency_key="k").output == 1


def test_an_expired_key_is_free_again():
    first = wait.create_token(idempotency_key="k")
    WaitToken.objects.update(key_expires_at=FromNow(-1))
    second = wait.create_token(idempotency_key="k")
    assert (second.is_cached, second.id == first.id) == (False, False)
    assert wait.create_token(idempotency_key="k").id == second.id


def test_of_many_with_one_key_at_once_one_token_is_made(in_thread, in_threads):
    found = in_threads(8, lambda: wait.create_token(idempotency_key="k", tags=["t"]))
    assert len({token.id for token in found}) == 1
    assert sum(not token.is_cached for token in found) == 1
    assert (WaitToken.objects.count(), WaitTokenTag.objects.count()) == (1, 1)


# -- rules of the table -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("wait_token_status_is_known", {"status": "OPEN"}),
        ("wait_token_completed_has_time", {"status": "COMPLETED"}),
        ("wait_token_completed_has_time", {"completed_at": FromNow()}),
        ("wait_token_key_once", {"key_hash": "h"}),
    ],
)
def test_the_database_refuses_tokens_that_must_not_be(name, values):
    wait.create_token()
    WaitToken.objects.filter(pk=wait.create_token().id).update(key_hash="h")
    with pytest.raises(IntegrityError), transaction.atomic():
        WaitToken.objects.filter(key_hash="").update(**values)


# -- lists ------------------------------------------------------------------------------------------------------------


def test_tokens_are_listed_newest_first_by_status_and_tags():
    made = []
    for tags in (["a"], ["a", "b"], ["c"]):
        made.append(wait.create_token(tags=tags))
        time.sleep(0.002)  # ids of one millisecond are in no order
    first, second, third = made
    wait.complete_token(second)

    def ids(**filters):
        return [token.id for token in wait.list_tokens(**filters).data]

    assert ids() == [third.id, second.id, first.id]
    assert ids(tags="a") == [second.id, first.id]
    assert ids(tags=["b", "c"]) == [third.id, second.id]
    assert ids(status="WAITING", tags="a") == [first.id]
    assert ids(period="1h", created_before=timezone.now() + timedelta(hours=1)) == [third.id, second.id, first.id]
    assert ids(created_after=timezone.now() + timedelta(hours=1)) == []
    assert ids(idempotency_key="none") == []


def test_pages_lead_to_the_older_and_to_the_newer_ones():
    ids = sorted((wait.create_token().id for _ in range(5)), reverse=True)
    page = wait.list_tokens(page_size=2)
    assert [token.id for token in page] == ids
    assert ([token.id for token in page.data], page.previous) == (ids[:2], None)
    last = wait.list_tokens(page_size=2, after=ids[3])
    assert ([token.id for token in last.data], last.next, last.previous) == (ids[4:], None, ids[4])
    middle = wait.list_tokens(page_size=2, before=ids[4])
    assert ([token.id for token in middle.data], middle.next, middle.previous) == (ids[2:4], ids[3], ids[2])


# -- retention --------------------------------------------------------------------------------------------------------


def test_old_tokens_go_once_they_are_settled():
    open_, young, old = wait.create_token(), wait.create_token(tags="t"), wait.create_token(tags="t")
    wait.complete_token(old)
    wait.complete_token(young)
    WaitToken.objects.exclude(pk=young.id).update(timeout_at=FromNow(-timedelta(days=31)))
    list(prune(timedelta(days=30)))
    assert set(WaitToken.objects.values_list("pk", flat=True)) == {open_.id, young.id}
    assert WaitTokenTag.objects.get().token_id == young.id


# -- in a task --------------------------------------------------------------------------------------------------------


@committing
@TOKEN_TASKS
def test_a_task_is_waiting_until_its_token_is_completed(in_thread, task, eventually):
    token = wait.create_token()
    run = task.trigger(token.id)
    wait_for_status(run, "WAITING", eventually)
    wait.complete_token(token, [1, 2])
    assert output_of(run) == {"ok": True, "output": [1, 2]}
    assert statuses_of(run) == ["QUEUED", "EXECUTING", "WAITING", "EXECUTING", "COMPLETED"]


@committing
@TOKEN_TASKS
def test_a_completion_wakes_by_its_bell_alone(in_thread, task, eventually, monkeypatch):
    monkeypatch.setattr(reading, "read_settled", lambda token_ids: [])
    token = wait.create_token()
    run = task.trigger(token.id)
    wait_for_status(run, "WAITING", eventually)
    time.sleep(0.2)
    wait.complete_token(token)
    assert output_of(run) == {"ok": True, "output": None}


@committing
@TOKEN_TASKS
def test_a_completion_that_rang_no_bell_is_found(in_thread, task, eventually):
    token = wait.create_token()
    run = task.trigger(token.id)
    wait_for_status(run, "WAITING", eventually)
    time.sleep(0.2)
    WaitToken.objects.update(status="COMPLETED", completed_at=FromNow(), output="3")
    assert output_of(run) == {"ok": True, "output": 3}


@committing
@TOKEN_TASKS
def test_a_task_learns_that_its_token_has_timed_out(in_thread, task):
    assert output_of(task.trigger(wait.create_token(timeout=0.2).id)) == TIMED_OUT


@committing
@TOKEN_TASKS
def test_a_token_that_is_settled_is_not_waited_for(in_thread, task):
    token = wait.create_token()
    wait.complete_token(token, 5)
    run = task.trigger(token.id)
    assert output_of(run) == {"ok": True, "output": 5}
    assert "WAITING" not in statuses_of(run)


@committing
def test_an_unknown_token_fails_the_task_at_once(in_thread):
    run = runs.poll(t.wait_token.trigger("waitpoint_missing"), interval=0.02, timeout=30)
    assert (run.status, run.error.name) == ("FAILED", "WaitTokenNotFound")


@committing
@pytest.mark.parametrize("task", [t.wait_for, t.wait_for_sync, t.wait_until])
def test_waiting_for_a_time(in_thread, task, eventually):
    run = task.trigger(0.3)
    wait_for_status(run, "WAITING", eventually)
    assert output_of(run) is True


@committing
def test_a_cancel_ends_a_sync_wait_for_a_time_or_for_a_token(in_thread, eventually):
    waiting = [t.wait_for_sync.trigger(3600), t.wait_token_sync.trigger(wait.create_token().id)]
    for run in waiting:
        wait_for_status(run, "WAITING", eventually)
        runs.cancel(run)
        assert eventually(lambda run=run: t.stopped.get(run.id), timeout=20) == "RunStopped"


@committing
def test_a_completion_in_another_process_wakes_a_waiter_without_a_layer(worker, eventually, settings):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "BACKEND": EMBEDDED}
    worker()
    token = wait.create_token()
    run = t.wait_token.trigger(token.id)
    wait_for_status(run, "WAITING", eventually)
    wait.complete_token(token, "hello")
    assert output_of(run) == {"ok": True, "output": "hello"}


COMPLETE = """
import sys, time, django
django.setup()
from realtime_runs import wait
wait.complete_token(sys.argv[1], "hello")
time.sleep(1)
"""


@committing
@pytest.mark.redis
def test_a_layer_carries_the_bell_to_another_process(
    redis_url, worker, start_process, server_env, eventually, settings
):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "BACKEND": EMBEDDED}
    env = {"REDIS_URL": redis_url}
    worker(env=env, BACKSTOP_SECONDS=300, BACKSTOP_WITH_LAYER_SECONDS=300)
    token = wait.create_token()
    run = t.wait_token.trigger(token.id)
    wait_for_status(run, "WAITING", eventually)
    start_process(["-c", COMPLETE, token.id], env={**server_env, **env})
    assert output_of(run) == {"ok": True, "output": "hello"}


# -- in the transaction of a test -------------------------------------------------------------------------------------


@TOKEN_TASKS
def test_the_immediate_backend_waits_for_tokens(task):
    token, other = wait.create_token(), wait.create_token(timeout=0.2)
    wait.complete_token(token, 1)
    completed, timed_out = task.trigger(token.id), task.trigger(other.id)
    execute_queued_runs()
    assert runs.retrieve(completed).output == {"ok": True, "output": 1}
    assert runs.retrieve(timed_out).output == TIMED_OUT


@pytest.mark.parametrize("task", [t.wait_for, t.wait_for_sync, t.wait_until])
def test_the_immediate_backend_waits_for_a_time(task):
    run = task.trigger(0.05)
    execute_queued_runs()
    assert runs.retrieve(run).output is True
    assert "WAITING" in statuses_of(run)


def test_unwrapping_a_token_that_timed_out_raises():
    run = t.wait_token_unwrap.trigger(wait.create_token(timeout=0.05).id)
    execute_queued_runs()
    assert runs.retrieve(run).error.name == "WaitTimeout"


def test_a_token_whose_time_is_up_is_marked_once():
    token = wait.create_token()
    make_overdue(token)
    assert [wait_tokens.time_out([token.id]), wait_tokens.time_out([token.id])] == [True, False]
