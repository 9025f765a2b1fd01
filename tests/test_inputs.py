"""Input streams: what anybody sends to a run, and what its task takes."""

import threading

import pytest
from django.db import connections, transaction

from realtime_runs import runs, streams
from realtime_runs.engine import lifecycle
from realtime_runs.engine.context import Lease
from realtime_runs.engine.inputs import Take, has_more
from realtime_runs.exceptions import (
    ChunkInvalid,
    InvalidOption,
    LeaseLost,
    NotInsideRun,
    NotJson,
    RunNotFound,
    StreamClosed,
    TooLarge,
)
from realtime_runs.live.snapshot import RunError
from realtime_runs.models import Run, RunEvent, Stream, StreamChunk, StreamName
from realtime_runs.models.stream import INPUT
from realtime_runs.testing import execute_queued_runs
from tests import tasks as t
from tests.conftest import EMBEDDED
from tests.in_process import worker_in_thread
from tests.tasks_inputs import Approval, approval, numbers

pytestmark = pytest.mark.django_db(transaction=True)

in_one_transaction = pytest.mark.django_db(transaction=False)


@pytest.fixture
def embedded(settings):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "BACKEND": EMBEDDED, "LEASE_SECONDS": 20}


@pytest.fixture
def in_thread(embedded):
    with worker_in_thread():
        yield


def output_of(run, timeout=30):
    found = runs.poll(run, interval=0.02, timeout=timeout)
    assert found.status == "COMPLETED", found.error
    return found.output


def statuses_of(run):
    return list(RunEvent.objects.filter(run=run.id).order_by("id").values_list("status", flat=True))


def wait_for_status(run, status, eventually):
    eventually(lambda: Run.objects.filter(pk=run.id, status=status).exists(), timeout=20)


# -- sending ----------------------------------------------------------------------------------------------------------


def test_what_is_sent_is_stored_and_shows_in_no_stream_of_the_run(embedded):
    run = t.echo.trigger(1)
    approval.send(run, Approval(ok=True, by="ann"))
    approval.send(run.id, {"ok": False})
    rows = StreamChunk.objects.filter(stream__run=run.id, stream__kind=INPUT).order_by("index")
    assert [bytes(row.data) for row in rows] == [b'{"ok":true,"by":"ann"}', b'{"ok":false,"by":""}']
    assert runs.retrieve(run).realtime_streams == ()


async def test_it_can_be_sent_from_async_code(embedded):
    run = await t.echo.atrigger(1)
    await approval.asend(run, {"ok": True})
    assert await StreamChunk.objects.acount() == 1


def test_in_a_transaction_it_shares_its_end(embedded):
    run = t.echo.trigger(1)
    with transaction.atomic():
        approval.send(run, {"ok": True})
        transaction.set_rollback(True)
    assert not StreamChunk.objects.exists()


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda run: approval.send(run, {"ok": "perhaps"}), ChunkInvalid),
        (lambda run: approval.send("run_missing", {"ok": True}), RunNotFound),
        (lambda run: streams.input("any").send(run, float("nan")), NotJson),
        (lambda run: streams.input("any").send(run, "x" * (1024 * 1024 - 1)), TooLarge),
        (lambda run: streams.input(""), InvalidOption),
        (lambda run: streams.input("a\0"), NotJson),
        (lambda run: approval.once(), NotInsideRun),
        (lambda run: approval.wait(), NotInsideRun),
        (lambda run: approval.peek(), NotInsideRun),
        (lambda run: approval.on(print), NotInsideRun),
    ],
)
def test_bad_input_is_a_clear_error_and_stores_nothing(embedded, call, error):
    run = t.echo.trigger(1)
    with pytest.raises(error):
        call(run)
    assert not StreamChunk.objects.exists()


def test_an_input_may_be_twice_as_large_as_a_chunk(embedded):
    run = t.echo.trigger(1)
    streams.input("any").send(run, "x" * (1024 * 1024 - 2))
    assert StreamChunk.objects.count() == 1


def test_a_final_run_is_refused(embedded):
    run = t.echo.trigger(1)
    runs.cancel(run)
    with pytest.raises(StreamClosed, match="CANCELED"):
        approval.send(run, {"ok": True})


# -- taking, with a worker --------------------------------------------------------------------------------------------

TAKERS = pytest.mark.parametrize("task", [t.input_once, t.input_once_sync, t.input_wait, t.input_wait_sync])


@TAKERS
def test_a_record_that_was_sent_before_is_delivered(in_thread, task):
    run = task.trigger(30, delay=3600)
    approval.send(run, {"ok": True, "by": "early"})
    runs.reschedule(run, 0)
    assert output_of(run) == "early"
    assert "WAITING" not in statuses_of(run)


@TAKERS
def test_a_task_that_waits_gets_what_is_sent_then(in_thread, task, eventually):
    run = task.trigger()
    wait_for_status(run, "EXECUTING" if "once" in task.id else "WAITING", eventually)
    approval.send(run, {"ok": True, "by": "late"})
    assert output_of(run) == "late"
    assert ("WAITING" in statuses_of(run)) == ("wait" in task.id)


@TAKERS
def test_the_wait_ends_at_its_time_out(in_thread, task):
    assert output_of(task.trigger(0.1)) == "timed out"


@pytest.mark.parametrize("task", [t.input_peek, t.input_peek_sync])
def test_a_peek_takes_nothing(in_thread, task):
    run = task.trigger(delay=3600)
    numbers.send(run, 1)
    numbers.send(run, 2)
    runs.reschedule(run, 0)
    assert output_of(run) == [1, 1, 1, 2]


def test_a_second_attempt_goes_on_behind_what_the_first_one_took(in_thread):
    run = t.input_retry.trigger(delay=3600)
    for number in range(4):
        numbers.send(run, number)
    runs.reschedule(run, 0)
    assert output_of(run) == [2, 3]


def test_of_many_who_wait_at_once_each_gets_another_record(in_thread, in_threads):
    run = t.input_many.trigger(12)
    in_threads(4, lambda: [numbers.send(run, number) for number in range(3)])
    assert sorted(output_of(run)) == sorted([0, 1, 2] * 4)


def test_who_gives_up_while_it_takes_a_record_loses_none(in_thread):
    run = t.input_impatient.trigger(60)
    for number in range(60):
        numbers.send(run, number)
    assert output_of(run, timeout=50) == list(range(60))


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_handler_is_called_for_each_record_in_order_until_it_is_closed(in_thread, kind, caplog):
    run = t.input_on.trigger(kind)
    for number in (1, 13, 2, -1):
        numbers.send(run, number)
    threading.Timer(0.3, _send_from_thread, (run, 99)).start()
    assert output_of(run) == {"seen": [1, 13, 2, -1], "later": 99}
    assert "unlucky" in caplog.text


def _send_from_thread(run, number):
    numbers.send(run, number)
    connections.close_all()


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_sync_task_has_handlers_too(in_thread, kind):
    run = t.input_on_sync.trigger(kind)
    for number in (1, 2, -1):
        numbers.send(run, number)
    assert output_of(run) == [1, 2, -1]


@pytest.mark.parametrize("task", [t.input_wait, t.input_wait_sync])
def test_a_cancel_ends_a_wait(in_thread, task, eventually):
    run = task.trigger()
    wait_for_status(run, "WAITING", eventually)
    runs.cancel(run)
    assert eventually(lambda: t.stopped.get(run.id), timeout=20) in ("RunStopped", "CancelledError")
    assert runs.retrieve(run).status == "CANCELED"


def test_a_worker_in_another_process_gets_what_is_sent_here(worker, embedded, eventually):
    worker()
    run = t.input_wait.trigger()
    wait_for_status(run, "WAITING", eventually)
    approval.send(run, {"ok": True, "by": "far"})
    assert output_of(run) == "far"


# -- taking, step by step ---------------------------------------------------------------------------------------------


def attempt_of(run):
    (row,) = lifecycle.claim([t.echo.id], 1, run_ids=[run.id])
    return Lease(row.id, row.attempt, row.lease_token)


def taking(run, lease):
    return Take(lease, StreamName(run.id, INPUT, "numbers"))


@pytest.fixture
def run_with_records(embedded):
    run = t.echo.trigger(1)
    for number in range(3):
        numbers.send(run, number)
    return run


def test_an_attempt_that_lost_its_lease_takes_nothing(run_with_records):
    run = run_with_records
    old = attempt_of(run)
    assert transaction.atomic(taking(run, old))() == b"0"
    Run.objects.update(max_attempts=2)
    lifecycle.retry(old, RunError("a", "b"), 0)
    new = attempt_of(run)
    with pytest.raises(LeaseLost):
        transaction.atomic(taking(run, old))()
    assert transaction.atomic(taking(run, new))() == b"1"


def test_a_take_that_is_repeated_gives_the_same_record(run_with_records):
    """As the writer does when only the answer to its commit was lost."""
    run = run_with_records
    take = taking(run, attempt_of(run))
    assert [transaction.atomic(take)(), transaction.atomic(take)()] == [b"0", b"0"]
    assert Stream.objects.get().consumed == 1


def test_a_record_that_is_given_back_is_the_next_one_again(run_with_records):
    run = run_with_records
    lease = attempt_of(run)
    take = taking(run, lease)
    transaction.atomic(take)()
    transaction.atomic(take.give_back)()
    assert transaction.atomic(taking(run, lease))() == b"0"


def test_of_many_takes_at_once_none_gives_the_same_record(run_with_records, in_threads):
    run = run_with_records
    for number in range(3, 12):
        numbers.send(run, number)
    lease = attempt_of(run)

    def take_three():
        return [transaction.atomic(taking(run, lease))() for _ in range(3)]

    taken = [data for thread in in_threads(4, take_three) for data in thread]
    assert sorted(taken, key=int) == [str(number).encode() for number in range(12)]


def test_nobody_else_takes_while_one_is_at_it(run_with_records):
    run = run_with_records
    lease = attempt_of(run)
    first, second = taking(run, lease), taking(run, lease)
    assert (first.has_turn(), second.has_turn()) == (True, False)
    first.end_turn()
    assert second.has_turn()
    second.end_turn()


def test_of_a_final_run_nothing_is_expected(run_with_records):
    run = run_with_records
    runs.cancel(run)
    other = t.echo.trigger(2)
    assert [has_more(StreamName(each.id, INPUT, "nothing")) for each in (run, other)] == [False, None]


# -- in the transaction of a test -------------------------------------------------------------------------------------


@in_one_transaction
@TAKERS
def test_the_immediate_backend_delivers_what_was_sent_before(task):
    run = task.trigger()
    approval.send(run, {"ok": True, "by": "early"})
    execute_queued_runs()
    assert runs.retrieve(run).output == "early"


@in_one_transaction
@TAKERS
def test_the_immediate_backend_waits_until_the_time_out(task):
    run = task.trigger(0.1)
    execute_queued_runs()
    assert runs.retrieve(run).output == "timed out"
    assert ("WAITING" in statuses_of(run)) == ("wait" in task.id)


@in_one_transaction
@pytest.mark.parametrize("task", [t.input_once_sync, t.input_wait_sync])
def test_a_sync_wait_that_could_never_end_there_is_timed_out_at_once(task):
    run = task.trigger()
    execute_queued_runs()
    assert runs.retrieve(run).output == "timed out"


@in_one_transaction
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_handlers_work_in_the_immediate_backend(kind):
    run, other = t.input_on_sync.trigger(kind), t.input_on.trigger(kind)
    for number in (1, -1, 99):
        numbers.send(run, number)
        numbers.send(other, number)
    execute_queued_runs()
    assert runs.retrieve(run).output == [1, -1, 99]  # nothing runs beside a sync task: all at once
    assert runs.retrieve(other).output == {"seen": [1, -1], "later": 99}
