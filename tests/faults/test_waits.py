"""Places: sync runs get a thread each, and runs that wait for others give their place away and get it back."""

from typing import Any

import pytest

from realtime_runs.models import Run
from tests.faults.conftest import Fleet, Work, history
from tests.tasks import f_gate_deaf, f_note_sync, f_two_waits, f_waiting_sync

pytestmark = pytest.mark.django_db(transaction=True)

FLEET = {"SYNC_CONCURRENCY": 2}


def test_sync_runs_that_come_together_run_at_the_same_time(fleet: Fleet, work: Work, final: Any) -> None:
    fleet(1)
    final(f_note_sync.trigger(work()))  # leaves a thread behind that has nothing to do
    handle = f_gate_deaf.batch_trigger([work()] * 2)
    work.wait_for("began 1", times=2)
    work.open(1)
    final(handle)


def test_more_waiting_parents_than_slots_do_not_keep_their_children_from_running(
    fleet: Fleet, work: Work, final: Any
) -> None:
    fleet(1)
    handle = f_waiting_sync.batch_trigger([work()] * 6)  # all six before the first child
    work.wait_for("waits 1", times=6)  # all six are in their functions, at two slots
    work.open(0)
    for run in final(handle):
        assert (run.status, run.attempt) == ("COMPLETED", 1)
        assert history(run.id) == ["QUEUED", "EXECUTING", "WAITING", "EXECUTING", "COMPLETED"]
    assert {run.attempt for run in Run.objects.all()} == {1}


def test_a_task_may_wait_for_several_children_at_once(fleet: Fleet, work: Work, final: Any) -> None:
    fleet(1)
    (run,) = final(f_two_waits.trigger(work()))
    assert run.status == "COMPLETED", run.error
