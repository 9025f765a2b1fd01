"""SIGTERM: short work ends, long work goes back to the queue free of charge, and the process is gone in time."""

from collections.abc import Callable
from typing import Any

import pytest

from realtime_runs.models import Attempt, Run
from tests.conftest import SERVERS, Process, eventually
from tests.faults.conftest import Work, assert_ended_once, history
from tests.tasks import f_gate, f_gate_deaf, f_gate_deaf_in_async, f_gate_hooked, f_note, f_waiting

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def works(tmp_path: Any) -> Callable[[str], Work]:
    """One payload for each of several runs."""

    def make(name: str) -> Work:
        folder = tmp_path / name
        folder.mkdir()
        return Work(folder)

    return make


def assert_handed_back(run_id: str) -> None:
    run = Run.objects.get(pk=run_id)
    assert (run.status, run.attempt, run.lease_token) == ("QUEUED", 0, "")
    assert not Attempt.objects.filter(run=run).exists()


def test_short_work_ends_and_long_work_is_done_by_another_worker_with_its_first_attempt(
    worker: Callable[..., Process], works: Any, final: Any
) -> None:
    first = worker(SHUTDOWN_GRACE_SECONDS=1)
    short, long, deaf, waiting = (works(name) for name in ("short", "long", "deaf", "waiting"))
    handles = [
        f_gate.trigger(short()),
        f_gate.trigger(long()),
        f_gate_deaf.trigger(deaf()),
        f_waiting.trigger(waiting()),
    ]
    for its in (short, long, deaf):
        its.wait_for("began 1")
    waiting.wait_for("child began")
    first.terminate()
    first.wait_for_output("Draining")
    late = f_note.trigger(works("late")())
    short.open(1)
    assert first.wait(15) == 0  # 1 s of grace, 2 s for last words
    assert "Drained." in first.output()
    assert Run.objects.get(pk=handles[0].id).status == "COMPLETED"
    for handle in handles[1:]:
        assert_handed_back(handle.id)
    assert history(late.id) == ["QUEUED"]

    for its in (long, deaf):
        its.open(1)
    waiting.open(0)
    worker()
    for run in final(*handles, late):
        assert (run.status, run.attempt) == ("COMPLETED", 1)
        assert list(Attempt.objects.filter(run=run).values_list("number", "error")) == [(1, "")]
        assert_ended_once(run.id)


def test_a_worker_ends_although_a_sync_function_of_an_async_task_does_not(
    worker: Callable[..., Process], work: Work
) -> None:
    process = worker(SHUTDOWN_GRACE_SECONDS=0.5)
    handle = f_gate_deaf_in_async.trigger(work())
    work.wait_for("began 1")
    process.terminate()
    assert process.wait(15) == 0
    assert_handed_back(handle.id)


@pytest.mark.parametrize("kind", SERVERS)
def test_the_worker_inside_a_web_server_drains_too(kind: str, asgi_server: Callable[..., Any], works: Any) -> None:
    server = asgi_server(kind, SHUTDOWN_GRACE_SECONDS=1)
    short, long, deaf = (works(name) for name in ("short", "long", "deaf"))
    hooked = f_gate_hooked.trigger(short())
    handles = [f_gate.trigger(long()), f_gate_deaf.trigger(deaf())]
    short.wait_for("began")
    for its in (long, deaf):
        its.wait_for("began 1")
    server.process.terminate()
    eventually(lambda: "Draining" in server.process.output(), 20)
    short.open(1)
    server.process.wait(20)
    for handle in handles:
        assert_handed_back(handle.id)
    run = Run.objects.get(pk=hooked.id)
    assert run.status == "COMPLETED"
    # The hook has run, or is still to be run by somebody.
    assert f"on_success COMPLETED {run.id}" in short.lines() or run.hook_at is not None
