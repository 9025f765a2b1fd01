"""What keeps a lease, and who waits for whom when rows are locked. This process plays the worker here."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connections, transaction

from realtime_runs.engine import lifecycle
from realtime_runs.engine.context import Lease
from realtime_runs.engine.heartbeat import Heartbeat
from realtime_runs.engine.upkeep import upkeep
from realtime_runs.engine.writer import GroupWriter
from realtime_runs.models import FromNow, Run
from realtime_runs.packets import pack_output
from tests.conftest import eventually
from tests.faults.conftest import Work, assert_ended_once
from tests.tasks import f_note

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _short_leases(settings: Any) -> None:
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "LEASE_SECONDS": 0.8, "LOOP_STALL_SECONDS": 0.4}


def claim(count: int, work: Work) -> list[Lease]:
    """Leases on new runs, in the order of their ids."""
    f_note.batch_trigger([work()] * count)
    claimed = lifecycle.claim([f_note.id], count)
    return sorted((Lease(run.id, run.attempt, run.lease_token) for run in claimed), key=lambda lease: lease.run_id)


@contextmanager
def beating(leases: list[Lease]) -> Iterator[Heartbeat]:
    heartbeat = Heartbeat(lambda: leases, lambda lost: None)
    heartbeat.start()
    try:
        yield heartbeat
    finally:
        heartbeat.stop()
        heartbeat._thread.join()


@contextmanager
def locked_elsewhere(run_id: str) -> Iterator[None]:
    """Somebody's transaction has changed this row and takes its time: a view, a shell, a worker that hangs."""
    is_locked, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        try:
            with transaction.atomic():
                Run.objects.select_for_update().get(pk=run_id)
                is_locked.set()
                may_end.wait(30)
        finally:
            connections.close_all()

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert is_locked.wait(10)
        yield
    finally:
        may_end.set()
        thread.join()


def test_a_lease_is_renewed_until_the_event_loop_is_stuck_for_too_long(work: Work) -> None:
    alive, stuck = claim(2, work)
    with beating([alive]) as ticking, beating([stuck]):
        for _ in range(20):
            time.sleep(0.1)
            ticking.tick()
        assert [run.id for run in Run.objects.stalled()] == [stuck.run_id]


@pytest.mark.postgres
def test_a_locked_row_keeps_no_other_lease_from_being_renewed(work: Work) -> None:
    locked, other = claim(2, work)
    with beating([locked, other]) as heartbeat, locked_elsewhere(locked.run_id):
        for _ in range(20):
            time.sleep(0.1)
            heartbeat.tick()
        assert not Run.objects.stalled().filter(pk=other.run_id).exists()


@pytest.mark.postgres
def test_a_locked_row_does_not_keep_upkeep_from_the_other_runs(work: Work) -> None:
    locked, other = claim(2, work)
    delayed = f_note.trigger(work(), delay="1h")
    Run.objects.filter(pk=delayed.id).update(delayed_until=FromNow(-1))
    Run.objects.filter(pk__in=[locked.run_id, other.run_id]).update(lease_until=FromNow(-1), max_attempts=2)

    def keep_up() -> None:
        try:
            upkeep([f_note.id])
        finally:
            connections.close_all()

    thread = threading.Thread(target=keep_up)
    try:
        with locked_elsewhere(locked.run_id):
            thread.start()
            eventually(lambda: Run.objects.filter(pk__in=[other.run_id, delayed.id], status="QUEUED").count() == 2)
    finally:
        thread.join()


@pytest.mark.postgres
def test_a_locked_row_does_not_keep_the_other_runs_of_its_worker_from_writing(work: Work) -> None:
    locked, other = claim(2, work)
    writer, output = GroupWriter(), pack_output(None)
    with locked_elsewhere(locked.run_id):
        waiting = writer.submit(lambda: lifecycle.complete(locked, output))
        time.sleep(0.1)  # so that it is alone in its commit
        writer.submit(lambda: lifecycle.complete(other, output)).result(timeout=10)
    waiting.result(timeout=10)
    assert set(Run.objects.values_list("status", flat=True)) == {"COMPLETED"}


@pytest.mark.postgres
def test_cancel_and_the_group_commit_of_a_worker_do_not_lock_each_other_out(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases = claim(2, work)
    first_is_written, errors = threading.Event(), []
    finish = lifecycle._finish_attempt

    def finish_slowly(*args: Any) -> None:
        finish(*args)
        first_is_written.set()
        time.sleep(0.3)  # time for the cancel to lock the row that this transaction wants next

    def cancel() -> None:
        try:
            assert first_is_written.wait(10)
            lifecycle.cancel([lease.run_id for lease in leases])
        except Exception as error:
            errors.append(error)
        finally:
            connections.close_all()

    monkeypatch.setattr(lifecycle, "_finish_attempt", finish_slowly)
    writer = GroupWriter()
    output = pack_output(None)
    thread = threading.Thread(target=cancel)
    thread.start()
    blocker = writer.submit(lambda: time.sleep(0.2))  # so that the next two go into one transaction
    futures = [writer.submit(lambda lease=lease: lifecycle.complete(lease, output)) for lease in reversed(leases)]
    for future in [blocker, *futures]:
        future.exception(timeout=20)
    thread.join()
    assert errors == []
    for lease in leases:
        assert_ended_once(lease.run_id)
