"""Attempts and their ends, in the test's own thread and transaction (immediate backend)."""

import pytest

from realtime_runs import runs
from realtime_runs.engine import lifecycle, registry
from realtime_runs.engine.context import Lease
from realtime_runs.engine.execution import describe
from realtime_runs.exceptions import LeaseLost, NotInsideRun
from realtime_runs.live.snapshot import RunError
from realtime_runs.models import Attempt, Run, RunEvent
from realtime_runs.packets import Packet
from realtime_runs.statuses import RunStatus
from realtime_runs.tasks import current_run
from realtime_runs.testing import execute_queued_runs
from tests import tasks as t

pytestmark = pytest.mark.django_db


def executed(handle):
    execute_queued_runs()
    return runs.retrieve(handle)


def history(handle):
    return list(RunEvent.objects.filter(run=handle.id).order_by("id").values_list("status", flat=True))


@pytest.mark.parametrize("task", [t.echo, t.echo_sync])
@pytest.mark.parametrize("payload", [{"a": [1, 2.5, None, True]}, "text", 0, None, [], 10**40, "é\u2028"])
def test_what_a_task_returns_is_the_output(task, payload):
    run = executed(task.trigger(payload))
    assert run.status == RunStatus.COMPLETED
    assert run.output == payload
    assert run.error is None
    assert run.started_at <= run.finished_at


def test_a_run_keeps_its_history():
    handle = t.echo.trigger(1)
    run = executed(handle)
    assert history(handle) == ["QUEUED", "EXECUTING", "COMPLETED"]
    assert run.version == 3
    attempt = Attempt.objects.get(run=handle.id)
    assert (attempt.number, attempt.error) == (1, "")
    assert attempt.finished_at is not None
    assert attempt.worker == lifecycle.worker_name()


def test_the_context_is_given_to_a_parameter_and_to_current_run():
    handle = t.context.trigger("p")
    assert executed(handle).output == {
        "payload": "p",
        "id": handle.id,
        "attempt": 1,
        "parent": None,
        "same": True,
        "stopped": False,
    }


def test_there_is_no_current_run_outside_of_a_task():
    with pytest.raises(NotInsideRun, match="current_run"):
        current_run()


def test_a_failing_task_is_tried_again_up_to_its_attempts():
    handle = t.fail.trigger("no luck")
    run = executed(handle)
    assert run.status == RunStatus.FAILED
    assert run.attempt_count == 3
    assert (run.error.name, run.error.message) == ("ValueError", "no luck")
    assert "raise ValueError(payload)" in run.error.stack_trace
    assert history(handle) == ["QUEUED", *["EXECUTING", "QUEUED"] * 2, "EXECUTING", "FAILED"]
    errors = [
        RunError.from_json(error).message
        for error in Attempt.objects.filter(run=run.id).values_list("error", flat=True)
    ]
    assert errors == ["no luck"] * 3


def test_a_later_attempt_may_succeed_and_leaves_no_error():
    run = executed(t.fail_once.trigger())
    assert (run.status, run.output, run.error, run.attempt_count) == (RunStatus.COMPLETED, 2, None, 2)


def test_max_attempts_of_the_trigger_wins():
    assert executed(t.fail.trigger(max_attempts=1)).attempt_count == 1


def test_abort_run_ends_the_attempts():
    run = executed(t.abort.trigger())
    assert (run.status, run.attempt_count, run.error.name) == (RunStatus.FAILED, 1, "AbortRun")


@pytest.mark.parametrize(("task", "hint"), [(t.bad_output, "valid integer"), (t.not_json, "not JSON")])
def test_an_output_that_does_not_fit_fails_the_run(task, hint):
    run = executed(task.trigger(max_attempts=1))
    assert (run.status, run.error.name) == (RunStatus.FAILED, "OutputInvalid")
    assert hint in run.error.message


def test_a_payload_that_no_longer_fits_fails_without_further_attempts():
    handle = t.order.trigger({"items": []})
    Run.objects.filter(pk=handle.id).update(payload='{"items": 7}')  # the model was changed by a deployment
    execute_queued_runs()
    row = Run.objects.get(pk=handle.id)
    assert (row.status, row.attempt) == (RunStatus.FAILED, 1)
    assert "items" in RunError.from_json(row.error).message


def test_odd_characters_in_output_and_error_do_not_fail_a_run(monkeypatch):
    monkeypatch.setattr(registry.get("t-echo"), "function", _returns_odd)
    assert executed(t.echo.trigger(1)).output == "\0 and \ud800"
    monkeypatch.setattr(registry.get("t-echo"), "function", _raises_odd)
    assert executed(t.echo.trigger(1, max_attempts=1)).error.message == "\0 and \ud800"


async def _returns_odd(payload):
    return "\0 and \ud800"


async def _raises_odd(payload):
    raise ValueError("\0 and \ud800")


def test_an_exception_that_cannot_be_shown_is_still_described():
    class Nasty(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    assert describe(Nasty()).name == "Nasty"


def test_a_huge_error_is_cut():
    assert len(describe(ValueError("x" * 10_000_000)).message) == 64 * 1024


@pytest.mark.parametrize("exit_with", [SystemExit(3), KeyboardInterrupt()])
@pytest.mark.parametrize("task", [t.echo, t.echo_sync])
def test_a_task_that_tries_to_leave_the_process_only_fails(monkeypatch, task, exit_with):
    async def leave(payload):
        raise exit_with

    def leave_sync(payload):
        raise exit_with

    monkeypatch.setattr(task, "function", leave if task.is_async else leave_sync)
    run = executed(task.trigger(1, max_attempts=1))
    assert (run.status, run.error.name) == (RunStatus.FAILED, type(exit_with).__name__)


def test_a_sync_task_works_in_the_transaction_of_the_test(monkeypatch):
    def count(payload):
        return Run.objects.count()

    monkeypatch.setattr(t.echo_sync, "function", count)
    assert executed(t.echo_sync.trigger(1)).output == 1


# -- leases -----------------------------------------------------------------------------------------------------------


def claimed(handle) -> Lease:
    (run,) = lifecycle.claim(["t-echo"], 1, run_ids=[handle.id])
    return Lease(run.id, run.attempt, run.lease_token)


MOVES = {
    "complete": lambda lease: lifecycle.complete(lease, Packet("1")),
    "fail": lambda lease: lifecycle.fail(lease, RunError("E", "m")),
    "retry": lambda lease: lifecycle.retry(lease, RunError("E", "m"), 0),
    "wait": lifecycle.wait,
    "resume": lifecycle.resume,
}


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("loss", ["canceled", "other token", "other attempt"])
def test_without_the_lease_no_move_changes_anything(move, loss):
    handle = t.echo.trigger(1)
    lease = claimed(handle)
    if loss == "canceled":
        runs.cancel(handle)
    elif loss == "other token":
        lease = Lease(lease.run_id, lease.attempt, "0" * 16)
    else:
        lease = Lease(lease.run_id, lease.attempt + 1, lease.token)
    before = Run.objects.filter(pk=handle.id).values().get(), history(handle)
    with pytest.raises(LeaseLost):
        MOVES[move](lease)
    lifecycle.hand_back([lease])
    assert lifecycle.still_ours([lease]) == set()
    assert (Run.objects.filter(pk=handle.id).values().get(), history(handle)) == before


def test_a_run_can_be_claimed_in_the_millisecond_in_which_it_was_triggered():
    for number in range(50):
        claimed(t.echo.trigger(number))


def test_runs_are_claimed_in_the_order_in_which_they_were_triggered():
    ids = [t.echo.trigger(number).id for number in range(20)]
    claimed = lifecycle.claim(["t-echo"], 20)
    assert [run.id for run in claimed] == ids
    assert [(run.status, run.attempt, run.version) for run in claimed] == [("EXECUTING", 1, 2)] * 20
    assert claimed == list(Run.objects.order_by("rank"))
    assert [vars(run) | {"_state": 0} for run in claimed] == [
        vars(run) | {"_state": 0} for run in Run.objects.order_by("rank")
    ]


def test_a_claimed_run_is_not_claimed_again():
    handle = t.echo.trigger(1)
    claimed(handle)
    assert lifecycle.claim(["t-echo"], 10) == []


def test_a_worker_claims_only_tasks_it_knows():
    t.echo.trigger(1)
    assert lifecycle.claim(["other"], 10) == []


def test_a_run_handed_back_has_not_used_an_attempt():
    handle = t.echo.trigger(1)
    lifecycle.hand_back([claimed(handle)])
    run = runs.retrieve(handle)
    assert (run.status, run.attempt_count) == (RunStatus.QUEUED, 0)
    assert not Attempt.objects.exists()
    assert executed(handle).attempt_count == 1


def test_a_lost_lease_is_not_renewed():
    handle = t.echo.trigger(1)
    lease = claimed(handle)
    before = Run.objects.get(pk=handle.id).lease_until
    assert lifecycle.renew([Lease(lease.run_id, lease.attempt, "0" * 16)]) == set()
    assert Run.objects.get(pk=handle.id).lease_until == before


def test_renewing_keeps_the_lease_and_is_no_change_for_followers():
    handle = t.echo.trigger(1)
    lease = claimed(handle)
    before = Run.objects.get(pk=handle.id)
    assert lifecycle.renew([lease]) == {handle.id}
    after = Run.objects.get(pk=handle.id)
    assert after.lease_until > before.lease_until
    assert after.version == before.version
