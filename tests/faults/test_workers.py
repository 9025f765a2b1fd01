"""Promise 2: one worker at a time executes a run, and one that lost its lease changes nothing."""

import time
from typing import Any

import pytest
from django.db import transaction

from realtime_runs.models import Attempt, Run
from tests.conftest import eventually
from tests.faults.conftest import Fleet, Work, assert_ended_once, everything_of, history
from tests.tasks import f_gate, f_note, f_note_sync, f_pause, f_poison, f_waiting, f_zombie

pytestmark = pytest.mark.django_db(transaction=True)

FLEET = {"CONCURRENCY": 10, "SYNC_CONCURRENCY": 2}  # so few that 400 runs are claimed in many small bites


def attempts(run_id: str) -> list[tuple[int, bool, str]]:
    """Number, whether it is over, and the name of its error."""
    rows = Attempt.objects.filter(run=run_id).order_by("number")
    return [(row.number, row.finished_at is not None, row.error.split('"')[3] if row.error else "") for row in rows]


def test_eight_workers_execute_each_of_400_runs_exactly_once(fleet: Fleet, work: Work, final: Any) -> None:
    fleet(8)
    with transaction.atomic():  # all are there at the same moment
        handles = [f_note.batch_trigger([work()] * 300), f_note_sync.batch_trigger([work()] * 100)]
    runs = final(*handles, timeout=50)
    assert {(run.status, run.attempt) for run in runs} == {("COMPLETED", 1)}
    assert sorted(work.lines()) == sorted(run.id for run in runs)
    assert Attempt.objects.count() == 400
    assert len({run.output for run in runs}) > 2  # several took part: the output is the worker's process id


def test_a_run_whose_worker_is_killed_is_finished_by_another(fleet: Fleet, work: Work, final: Any) -> None:
    fleet(2)
    handle = f_gate.trigger(work())
    work.wait_for("began 1")
    victim = fleet.holder(handle.id)
    victim.kill9()
    work.wait_for("began 2")
    assert fleet.holder(handle.id) is not victim
    work.open(2)
    (run,) = final(handle)
    assert (run.status, run.output, run.attempt) == ("COMPLETED", "2", 2)
    assert attempts(run.id) == [(1, True, "WorkerLost"), (2, True, "")]
    assert history(run.id) == ["QUEUED", "EXECUTING", "QUEUED", "EXECUTING", "COMPLETED"]


def test_every_run_ends_once_although_workers_are_killed_all_the_time(fleet: Fleet, work: Work, final: Any) -> None:
    workers = fleet(4)
    handle = f_pause.batch_trigger([work(pause=0.3)] * 120)
    for victim in workers[:2]:
        going_on = Attempt.objects.filter(worker__endswith=f":{victim.pid}", finished_at=None)
        eventually(going_on.exists, interval=0.01)
        victim.kill9()
    runs = final(handle)
    assert any(run.attempt > 1 for run in runs)
    for run in runs:
        assert run.status == "COMPLETED"
        assert [number for number, _, _ in attempts(run.id)] == list(range(1, run.attempt + 1))
        assert [error for _, _, error in attempts(run.id)] == ["WorkerLost"] * (run.attempt - 1) + [""]
        assert_ended_once(run.id)


@pytest.mark.parametrize("task", [f_zombie, f_gate, f_waiting], ids=lambda task: task.id)
def test_a_worker_that_slept_past_its_lease_changes_nothing_and_works_on(
    task: Any, fleet: Fleet, work: Work, final: Any
) -> None:
    zombie, *others = fleet(2)
    fleet.freeze(*others)  # so that it is the zombie who begins
    handle = task.trigger(work(), tags=["t"], metadata={"by": "trigger"})
    status = "WAITING" if task is f_waiting else "EXECUTING"
    began = "waits" if task is f_waiting else "began"
    for attempt in (1, 2):
        work.wait_for(f"{began} {attempt}")
        eventually(lambda: Run.objects.filter(pk=handle.id, status=status, attempt=attempt).exists())  # noqa: B023
        if attempt == 1:
            fleet.freeze(zombie)
            fleet.thaw(*others)
    before = everything_of(handle.id)
    work.open(1)
    zombie.cont()
    work.wait_for({f_zombie: "wrote", f_gate: "went 1", f_waiting: "stopped waiting 1"}[task])
    if task is f_zombie:
        found = [line for line in work.lines() if ":" in line]
        # Before its second try it may have been told to stop.
        assert found in (["metadata: LeaseLost", "wait: LeaseLost"], ["metadata: LeaseLost", "wait: RunStopped"])
    time.sleep(0.3)  # for what it would do at its end
    assert everything_of(handle.id) == before

    fleet.freeze(*others)
    (mine,) = final(f_note.trigger(work()))  # the former zombie does it
    assert (mine.status, mine.output) == ("COMPLETED", str(zombie.pid))
    fleet.thaw(*others)
    work.open(2)
    work.open(0)
    (run,) = final(handle)
    assert (run.status, run.attempt, run.metadata) == ("COMPLETED", 2, '{"by":"trigger"}')
    assert_ended_once(run.id)


def test_a_task_that_ends_its_process_crashes_after_its_attempts_and_others_finish(
    fleet: Fleet, work: Work, final: Any
) -> None:
    workers = fleet(3)
    others = f_pause.batch_trigger([work(pause=1)] * 20)
    poison = f_poison.trigger(work())
    (run,) = final(poison)
    assert (run.status, run.attempt, work.lines()) == ("CRASHED", 2, ["began 1", "began 2"])
    assert attempts(run.id) == [(1, True, "WorkerLost"), (2, True, "WorkerLost")]
    assert_ended_once(run.id)
    assert [process.wait() for process in workers if process.has_ended] == [137, 137]
    assert {run.status for run in final(others)} == {"COMPLETED"}
