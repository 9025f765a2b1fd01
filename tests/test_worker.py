"""The engine in this process: a worker on an event loop of its own thread, as in a server."""

import asyncio
import threading
import time

import pytest
from django.db import OperationalError, connection, transaction

from realtime_runs import metadata, runs
from realtime_runs.engine import lifecycle
from realtime_runs.engine.slots import CountedSlots
from realtime_runs.engine.worker import Worker
from realtime_runs.engine.writer import GroupWriter
from realtime_runs.exceptions import InvalidInput, LeaseLost
from realtime_runs.models import Run, Tag
from tests import tasks as t

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def embedded(settings):
    settings.REALTIME_RUNS = {
        **settings.REALTIME_RUNS,
        "BACKEND": "realtime_runs.engine.backends.embedded.EmbeddedBackend",
        "LEASE_SECONDS": 20,
    }


@pytest.fixture
def start_worker(embedded):
    """Start a worker in a thread; all are drained at the end."""
    workers = []

    def start() -> Worker:
        ready = threading.Event()
        made = threading.Event()
        found = []

        def work():
            found.append(Worker())
            made.set()
            asyncio.run(found[0].run(ready=ready.set))

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        assert ready.wait(10)
        workers.append((found[0], thread))
        return found[0]

    yield start
    for worker, _ in workers:
        worker.stop()
    for worker, thread in workers:
        assert worker.wait(15)
        thread.join(5)


def test_it_executes_what_was_there_before_and_what_comes(start_worker):
    before = t.echo.trigger("before")
    start_worker()
    after = [t.echo.trigger("async"), t.echo_sync.trigger("sync")]
    assert [runs.poll(run, interval=0.01, timeout=20).output for run in (before, *after)] == ["before", "async", "sync"]


def test_an_idle_worker_starts_a_run_long_before_it_would_poll(settings, start_worker):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "POLL_SECONDS": 30}
    start_worker()
    for _ in range(5):
        run = runs.poll(t.echo.trigger(1), interval=0.005, timeout=10)
        assert (run.started_at - run.created_at).total_seconds() < 3


def test_a_rolled_back_trigger_is_never_executed(start_worker):
    start_worker()
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        t.echo.trigger(1, tags=["ghost"])
        raise ZeroDivisionError
    assert runs.poll(t.echo.trigger(2), interval=0.01, timeout=20).output == 2
    assert Run.objects.count() == 1
    assert not Tag.objects.exists()


def test_hundreds_of_async_runs_go_on_at_once(start_worker):
    start_worker()
    handle = t.sleep.batch_trigger([1.0] * 150)
    list(runs.subscribe_to_batch(handle, stop_on_completion=True))
    found = [runs.retrieve(run_id) for run_id in handle.run_ids]
    last_start, first_end = max(run.started_at for run in found), min(run.finished_at for run in found)
    assert last_start < first_end, "all of them had started before one had ended"


def test_sync_runs_are_bounded(settings, start_worker):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "SYNC_CONCURRENCY": 2}
    start_worker()
    t.sleep_sync.batch_trigger([0.1] * 6)
    at_once = []
    while True:
        statuses = list(Run.objects.values_list("status", flat=True))  # one query: one moment
        at_once.append(statuses.count("EXECUTING"))
        if set(statuses) == {"COMPLETED"}:
            break
        time.sleep(0.01)
    assert 1 <= max(at_once) <= 2


def test_cancel_ends_an_async_run_at_once(start_worker):
    worker = start_worker()
    handle = t.sleep.trigger(60)
    for run in runs.subscribe_to_run(handle):
        if run.is_executing:
            runs.cancel(run)
    assert run.is_cancelled
    until = time.monotonic() + 10
    while worker._executions and time.monotonic() < until:
        time.sleep(0.01)
    assert not worker._executions


def test_a_sync_run_learns_that_it_was_canceled(start_worker):
    worker = start_worker()
    handle = t.sleep_sync.trigger(60)
    for run in runs.subscribe_to_run(handle):
        if run.is_executing:
            runs.cancel(run)
    until = time.monotonic() + 10
    while worker._executions and time.monotonic() < until:
        time.sleep(0.01)
    assert not worker._executions
    final = runs.retrieve(handle)
    assert (final.status, final.output) == ("CANCELED", None)


def test_metadata_is_seen_while_the_run_goes_on(start_worker, monkeypatch):
    async def work(payload):
        for n in range(5):
            metadata.set("n", n)
            await asyncio.sleep(0.15)

    monkeypatch.setattr(t.echo, "function", work)
    start_worker()
    seen = [run.metadata.get("n") for run in runs.subscribe_to_run(t.echo.trigger(1)) if run.is_executing]
    assert len([n for n in seen if n is not None]) >= 3
    assert runs.list().data[0].metadata == {"n": 4}


def test_frequent_metadata_is_written_rarely(start_worker, monkeypatch):
    async def work(payload):
        for _ in range(200):
            metadata.increment("n")
            await asyncio.sleep(0.002)

    monkeypatch.setattr(t.echo, "function", work)
    start_worker()
    run = runs.poll(t.echo.trigger(1), interval=0.05, timeout=20)
    assert run.metadata == {"n": 200}
    assert run.version < 50, "one version for many increments"


def test_a_parent_waits_without_a_slot(settings, start_worker):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "CONCURRENCY": 1, "SYNC_CONCURRENCY": 1}
    start_worker()
    handles = [t.parent.trigger(1), t.parent_sync.trigger(4)]
    assert [runs.poll(handle, interval=0.02, timeout=20).output for handle in handles] == [2, 8]


def test_waiting_inside_a_transaction_is_refused(start_worker, monkeypatch):
    def work(payload):
        with transaction.atomic():
            t.echo.trigger_and_wait(1)

    monkeypatch.setattr(t.echo_sync, "function", work)
    start_worker()
    run = runs.poll(t.echo_sync.trigger(1, max_attempts=1), interval=0.02, timeout=20)
    assert run.error.name == InvalidInput.__name__
    assert "for ever" in run.error.message


def test_a_delayed_run_starts_when_its_time_has_come(start_worker):
    start_worker()
    run = runs.poll(t.echo.trigger(1, delay=0.3), interval=0.02, timeout=20)
    assert run.started_at >= run.delayed_until


def test_a_run_that_is_not_started_within_its_ttl_expires(embedded, start_worker):
    handle = t.echo.trigger(1, ttl=0.05)
    time.sleep(0.1)
    start_worker()
    run = runs.poll(handle, interval=0.02, timeout=20)
    assert (run.status, run.attempt_count, run.expired_at is not None) == ("EXPIRED", 0, True)


def test_a_started_run_does_not_expire(start_worker):
    start_worker()
    assert runs.poll(t.sleep.trigger(1.2, ttl=1), interval=0.02, timeout=20).status == "COMPLETED"


@pytest.mark.parametrize("task", [t.sleep, t.sleep_sync])
def test_a_run_that_takes_too_long_times_out(start_worker, task):
    start_worker()
    run = runs.poll(task.trigger(30, max_duration=0.2), interval=0.02, timeout=20)
    assert (run.status, run.error.name, run.attempt_count) == ("TIMED_OUT", "TimedOut", 1)


# -- group commit -----------------------------------------------------------------------------------------------------


def test_writes_that_wait_share_a_commit():
    writer = GroupWriter()
    first_is_in, go_on = threading.Event(), threading.Event()

    def slow():
        first_is_in.set()
        go_on.wait(5)
        return transaction.get_connection().in_atomic_block

    transactions = []

    def note_transaction():
        transactions.append(transaction.get_connection().atomic_blocks[0])

    first = writer.submit(slow)
    assert first_is_in.wait(5)
    others = [writer.submit(note_transaction) for _ in range(50)]
    go_on.set()
    assert first.result(5)
    for other in others:
        other.result(5)
    assert len(transactions) == 50
    # Where two threads write, the second one may have taken those that came first.
    assert len(set(map(id, transactions))) <= (2 if connection.vendor == "postgresql" else 1)


def test_a_bad_write_fails_alone():
    writer = GroupWriter()
    gate = threading.Event()
    writer.submit(lambda: gate.wait(5))

    def bad():
        Tag.objects.create(name="bad", created_at=None)

    def good(name):
        return lambda: Tag.objects.create(name=name, created_at=lifecycle.database_now())

    futures = [writer.submit(good("a")), writer.submit(bad), writer.submit(good("b"))]
    gate.set()
    futures[0].result(5)
    futures[2].result(5)
    with pytest.raises(Exception, match="created_at"):
        futures[1].result(5)
    assert set(Tag.objects.values_list("name", flat=True)) == {"a", "b"}


def test_a_lost_lease_does_not_disturb_the_others():
    writer = GroupWriter()
    gate = threading.Event()
    writer.submit(lambda: gate.wait(5))

    def lost():
        raise LeaseLost("run_x", 1)

    def good():
        Tag.objects.create(name="good", created_at=lifecycle.database_now())

    futures = [writer.submit(lost), writer.submit(good)]
    gate.set()
    with pytest.raises(LeaseLost):
        futures[0].result(5)
    futures[1].result(5)
    assert Tag.objects.count() == 1


def test_a_write_is_repeated_while_the_database_is_away():
    writer = GroupWriter()
    tries = []

    def flaky():
        tries.append(1)
        if len(tries) < 4:
            raise OperationalError("gone")
        return "there"

    assert writer.write(flaky) == "there"
    assert len(tries) == 4


# -- slots ------------------------------------------------------------------------------------------------------------


async def test_a_run_that_comes_back_from_waiting_goes_before_new_ones():
    slots = CountedSlots(2)
    slots.take()
    slots.take()
    slots.release()  # one begins to wait
    slots.take()  # a new one takes its place
    back = asyncio.create_task(slots.acquire())
    await asyncio.sleep(0)
    assert not back.done()
    assert slots.free == 0
    slots.release()
    await back
    assert (slots.taken, slots.free) == (2, 0)


async def test_a_cancelled_wait_for_a_slot_leaves_none_behind():
    slots = CountedSlots(1)
    slots.take()
    back = asyncio.create_task(slots.acquire())
    await asyncio.sleep(0)
    slots.release()
    back.cancel()
    with pytest.raises(asyncio.CancelledError):
        await back
    assert slots.free == 1
