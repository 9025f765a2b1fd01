"""Runs that are ended from outside, and tasks that behave badly: the worker obeys, and lives on."""

import os
import re
import time
from typing import Any

import pytest

from realtime_runs import runs
from realtime_runs.models import Attempt, Run
from tests.conftest import eventually
from tests.faults.conftest import Fleet, Work, assert_ended_once, everything_of, history
from tests.tasks import (
    f_blocks_loop,
    f_fussy,
    f_gate,
    f_gate_deaf,
    f_gate_listening,
    f_note,
    f_parent,
    f_raise,
    f_raise_sync,
    f_says_last_words,
    f_swallow,
    f_tags_late,
    f_waiting,
)

pytestmark = pytest.mark.django_db(transaction=True)

# So long between two flushes that the last words of a run are in the buffer, as in real life for 100 ms.
FLEET = {"METADATA_FLUSH_SECONDS": 60}


def assert_lives_on(fleet: Fleet, final: Any, work: Work) -> None:
    """A new run is executed by one of the same processes."""
    pids = {process.pid for process in fleet.processes}
    (run,) = final(f_note.trigger(work()))
    assert int(run.output) in pids


# -- cancel -----------------------------------------------------------------------------------------------------------


def test_of_cancel_and_completion_exactly_one_wins(fleet: Fleet, work: Work, in_threads: Any, final: Any) -> None:
    fleet(1)
    pauses = [0, *(0.005 * number for number in range(98)), 20]
    handles = [f_gate.trigger(work(pause=pause)) for pause in pauses]
    work.wait_for("began 1", times=100)
    # In the order of their ends, but the one that ends first comes last; so however slow we are, both happen.
    to_cancel = [handle.id for handle in [handles[0], *reversed(handles[1:])]]
    work.open(1)
    returned = in_threads(4, lambda: [runs.cancel(to_cancel.pop()) for _ in range(25)])
    told = {run.id: run.status for its in returned for run in its}
    for run in final(*handles):
        assert run.status == told[run.id]  # what the caller of cancel was told holds
        assert_ended_once(run.id)
        assert Attempt.objects.get(run=run).finished_at is not None
    assert set(told.values()) == {"CANCELED", "COMPLETED"}  # it was a race


def test_a_canceled_async_task_is_cancelled_at_once(fleet: Fleet, work: Work) -> None:
    fleet(1)
    handle = f_gate.trigger(work())
    work.wait_for("began 1")
    runs.cancel(handle)
    work.wait_for("cancelled 1")
    assert history(handle.id) == ["QUEUED", "EXECUTING", "CANCELED"]


def test_a_canceled_sync_task_learns_it_from_its_signal(fleet: Fleet, work: Work) -> None:
    fleet(1)
    handle = f_gate_listening.trigger(work())
    work.wait_for("began 1")
    runs.cancel(handle)
    work.wait_for("told to stop 1")
    time.sleep(0.3)  # it raises then, which is no failure of the run any more
    assert history(handle.id) == ["QUEUED", "EXECUTING", "CANCELED"]


def test_cancel_ends_a_waiting_run_with_the_children_below_it(fleet: Fleet, work: Work) -> None:
    fleet(1)
    handle = f_parent.trigger(work())
    work.wait_for("child began")
    eventually(lambda: Run.objects.filter(status="WAITING").count() == 2)
    runs.cancel(handle)
    assert list(Run.objects.order_by("depth").values_list("task", "status")) == [
        ("f-parent", "CANCELED"),
        ("f-waiting", "CANCELED"),
        ("f-child", "CANCELED"),
    ]
    work.wait_for("stopped waiting 1")


def test_a_task_that_swallows_its_cancellation_changes_nothing_any_more(fleet: Fleet, work: Work, final: Any) -> None:
    fleet(1)
    handle = f_swallow.trigger(work())
    work.wait_for("began")
    runs.cancel(handle)
    before = everything_of(handle.id)
    work.wait_for("ended")
    assert work.lines() == ["began", "cancelled", "LeaseLost", "ended"]
    assert_lives_on(fleet, final, work)
    assert everything_of(handle.id) == before


def test_an_attempt_that_is_over_adds_no_tags(fleet: Fleet, work: Work) -> None:
    fleet(1)
    handle = f_tags_late.trigger(work())
    work.wait_for("began")
    runs.cancel(handle)
    work.open(1)
    eventually(lambda: "tags" in work.lines()[-1])
    assert (work.lines()[-1], runs.retrieve(handle).tags) == ("tags: LeaseLost", ())


# -- max_duration -----------------------------------------------------------------------------------------------------


def test_an_async_run_is_cancelled_when_its_time_is_up(fleet: Fleet, work: Work, final: Any) -> None:
    fleet(1)
    (run,) = final(f_gate.trigger(work(), max_duration=0.3))
    work.wait_for("cancelled 1")
    assert (run.status, run.attempt) == ("TIMED_OUT", 1)
    assert history(run.id) == ["QUEUED", "EXECUTING", "TIMED_OUT"]


def test_a_sync_run_is_timed_out_although_its_thread_goes_on(fleet: Fleet, work: Work, final: Any) -> None:
    fleet(1)
    (run,) = final(f_gate_deaf.trigger(work(), max_duration=0.3))
    assert (run.status, work.lines()) == ("TIMED_OUT", ["began 1"])
    before = everything_of(run.id)
    work.open(1)
    work.wait_for("ended 1")
    assert_lives_on(fleet, final, work)
    assert everything_of(run.id) == before


def test_waiting_for_a_child_does_not_use_up_the_time(fleet: Fleet, work: Work, final: Any) -> None:
    fleet(1)
    handle = f_waiting.trigger(work(), max_duration=1)
    work.wait_for("child began")
    time.sleep(1.2)
    work.open(0)
    (run,) = final(handle)
    assert run.status == "COMPLETED"


def test_what_a_run_said_before_its_time_was_up_is_kept(fleet: Fleet, work: Work, final: Any) -> None:
    fleet(1)
    (run,) = final(f_says_last_words.trigger(work(), max_duration=0.5))
    assert (run.status, run.metadata) == ("TIMED_OUT", '{"step":2}')


# -- tasks that behave badly ------------------------------------------------------------------------------------------


def test_a_blocked_event_loop_keeps_its_leases_and_is_told_of(fleet: Fleet, work: Work, final: Any) -> None:
    fleet(2)
    (run,) = final(f_blocks_loop.trigger(work(pause=3)))  # longer than the lease
    assert (run.status, run.attempt, run.output) == ("COMPLETED", 1, '"awake again"')
    output = fleet.holder(run.id).output()
    assert re.search(r"event loop has been blocked for .* in f_blocks_loop\n +time\.sleep", output, re.DOTALL)


@pytest.mark.parametrize("error", ["SystemExit", "KeyboardInterrupt", "StopIteration", "CancelledError"])
@pytest.mark.parametrize("task", [f_raise, f_raise_sync], ids=["async", "sync"])
def test_a_task_that_raises_what_ends_programs_only_fails(
    task: Any, error: str, fleet: Fleet, work: Work, final: Any
) -> None:
    fleet(1)
    (run,) = final(task.trigger(error))
    assert run.status == "FAILED"
    # Python itself turns a StopIteration that leaves a coroutine into this.
    assert f'"{error}"' in run.error or '"RuntimeError"' in run.error
    assert_lives_on(fleet, final, work)


def test_an_error_inside_the_check_of_a_payload_fails_the_run(fleet: Fleet, work: Work, final: Any) -> None:
    fleet(1)
    (run,) = final(f_fussy.trigger(work(triggered_by=os.getpid())))
    assert (run.status, "LookupError" in run.error) == ("FAILED", True)
