"""Waiting for children, in the test's own thread (immediate backend). Real workers: tests/faults."""

import pytest

from realtime_runs import runs
from realtime_runs.exceptions import ChildFailed, NotInsideRun
from realtime_runs.models import RunEvent
from realtime_runs.testing import execute_queued_runs
from tests import tasks as t

pytestmark = pytest.mark.django_db


def test_a_parent_gets_the_output_of_its_child():
    handle = t.parent.trigger(41)
    execute_queued_runs()
    parent = runs.retrieve(handle)
    assert parent.output == 42
    (child,) = runs.list(task="t-echo").data
    assert (child.parent_id, child.root_id, child.depth, child.trigger_function) == (
        handle.id,
        handle.id,
        1,
        "triggerAndWait",
    )


def test_the_parent_is_waiting_meanwhile():
    handle = t.parent.trigger(1)
    execute_queued_runs()
    history = list(RunEvent.objects.filter(run=handle.id).order_by("id").values_list("status", flat=True))
    assert history == ["QUEUED", "EXECUTING", "WAITING", "EXECUTING", "COMPLETED"]


def test_a_sync_parent_waits_for_a_batch():
    handle = t.parent_sync.trigger(21)
    execute_queued_runs()
    assert runs.retrieve(handle).output == 42
    children = runs.list(task="t-echo").data
    assert {child.trigger_function for child in children} == {"batchTriggerAndWait"}
    assert len({child.batch_id for child in children}) == 1


def test_a_failed_child_is_a_result_and_not_an_exception():
    handle = t.parent_of_failure.trigger()
    execute_queued_runs()
    output = runs.retrieve(handle).output
    assert (output["ok"], output["error"]) == (False, "child")


def test_unwrapping_a_failed_child_raises(monkeypatch):
    async def unwraps(payload):
        (await t.fail.atrigger_and_wait("child", max_attempts=1)).unwrap()

    monkeypatch.setattr(t.echo, "function", unwraps)
    handle = t.echo.trigger(1, max_attempts=1)
    execute_queued_runs()
    error = runs.retrieve(handle).error
    assert error.name == ChildFailed.__name__
    assert "FAILED: child" in error.message


def test_outside_of_a_task_there_is_nobody_to_wait():
    with pytest.raises(NotInsideRun, match="trigger_and_wait"):
        t.echo.trigger_and_wait(1)
    with pytest.raises(NotInsideRun):
        t.echo.batch_trigger_and_wait([1])
    assert not runs.list().data
