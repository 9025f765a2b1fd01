"""Streams through the front door: what is stored, what is refused, what readers get."""

import asyncio
import threading
import time

import pytest
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connections, transaction

from realtime_runs import runs, streams
from realtime_runs.engine import lifecycle
from realtime_runs.engine.context import Lease
from realtime_runs.engine.writing import Target
from realtime_runs.exceptions import (
    ChunkInvalid,
    InvalidOption,
    NotInsideRun,
    NotJson,
    RunNotFound,
    StreamAborted,
    StreamClosed,
    StreamGap,
    StreamTimeout,
    TooLarge,
)
from realtime_runs.live.snapshot import RunError
from realtime_runs.models import Run, Stream, StreamChunk
from tests import tasks as t
from tests.stored_chunks import stored_chunks

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("nobody_executes"),
]

log = streams.define("log", str)


@pytest.fixture
def run_id() -> str:
    return t.echo.trigger(1).id


def test_chunks_get_dense_indexes_and_are_stored_when_append_returns(run_id):
    assert [log.append(text, target=run_id) for text in "abc"] == [0, 1, 2]
    assert stored_chunks(run_id) == [b'"a"', b'"b"', b'"c"']


def test_the_first_chunk_of_a_key_is_a_change_of_the_run(run_id):
    log.append("a", target=run_id)
    streams.append("other", 1, target=run_id)
    log.append("b", target=run_id)
    run = runs.retrieve(run_id)
    assert (run.realtime_streams, run.version) == (("log", "other"), 3)


def test_a_reader_gets_what_is_stored_and_ends_with_the_run(run_id):
    for text in "abc":
        log.append(text, target=run_id)
    runs.cancel(run_id)
    reader = log.read(run_id)
    assert (list(reader), reader.end_reason) == (["a", "b", "c"], "canceled")
    assert list(log.read(run_id, start_index=2)) == ["c"]
    assert list(log.read(run_id, start_index=3)) == []


def test_who_leaves_before_the_end_is_told_where_to_go_on_and_no_end(run_id):
    for text in "abc":
        log.append(text, target=run_id)
    runs.cancel(run_id)
    reader = log.read(run_id)
    assert next(iter(reader)) == "a"
    assert (reader.next_index, reader.end_reason) == (1, "")
    assert (list(log.read(run_id, start_index=reader.next_index)), list(reader)) == (["b", "c"], ["a", "b", "c"])
    assert reader.end_reason == "canceled"


def test_records_tell_index_attempt_time_and_id(run_id):
    log.append("a", target=run_id, record_id="mine")
    log.close(target=run_id)
    (record,) = log.read(run_id).records()
    assert (record.index, record.chunk, record.attempt, record.id) == (0, "a", 0, "mine")
    assert record.at == StreamChunk.objects.get().created_at


def test_a_reader_of_a_stream_that_nobody_has_written_ends_with_the_run(run_id):
    ended = []
    thread = threading.Thread(target=lambda: ended.append(list(log.read(run_id))) or connections.close_all())
    thread.start()
    time.sleep(0.1)
    assert thread.is_alive()
    runs.cancel(run_id)
    thread.join(5)
    assert ended == [[]]


def test_chunks_reach_an_async_reader_while_they_are_written(run_id):
    async def both() -> list[str]:
        seen = []

        async def follow() -> None:
            async for chunk in log.read(run_id):
                seen.append(chunk)
                if len(seen) < 5:
                    await log.aappend(str(len(seen)), target=run_id)
                else:
                    await log.aclose(target=run_id)

        await log.aappend("0", target=run_id)
        await asyncio.wait_for(follow(), 10)
        return seen

    assert asyncio.run(both()) == list("01234")


def test_latest_begins_with_what_comes_next(run_id):
    log.append("old", target=run_id)

    async def follow() -> list[str]:
        reader = log.read(run_id, start="latest")
        first = asyncio.ensure_future(anext(aiter(reader)))
        while not first.done():
            await asyncio.sleep(0.05)
            await log.aappend("new", target=run_id)
        return [await first]

    assert asyncio.run(follow()) == ["new"]


def test_a_closed_stream_takes_no_more(run_id):
    log.append("a", target=run_id)
    log.close(target=run_id)
    log.close(target=run_id)
    with pytest.raises(StreamClosed, match="closed"):
        log.append("b", target=run_id)
    assert stored_chunks(run_id) == [b'"a"']
    assert list(log.read(run_id)) == ["a"]


def test_a_final_run_takes_no_more(run_id):
    runs.cancel(run_id)
    with pytest.raises(StreamClosed, match="CANCELED"):
        log.append("b", target=run_id)
    assert not Stream.objects.exists()


def test_the_end_of_a_run_closes_its_streams_in_the_same_transaction(run_id):
    log.append("a", target=run_id)
    with transaction.atomic():
        runs.cancel(run_id)
        stream = Stream.objects.get()
        assert (stream.closed_at is not None, stream.end_reason) == (True, "canceled")
        transaction.set_rollback(True)
    assert log.append("b", target=run_id) == 1


def test_a_repeated_write_is_stored_once_and_gives_its_index_again(run_id):
    assert [log.append(text, target=run_id, producer="p", sequence=n) for n, text in enumerate("ab")] == [0, 1]
    assert log.append("again", target=run_id, producer="p", sequence=0) == 0
    assert log.append("c", target=run_id, producer="q", sequence=0) == 2
    assert log.append("d", target=run_id, record_id="r") == 3
    assert log.append("d", target=run_id, record_id="r") == 3
    assert stored_chunks(run_id) == [b'"a"', b'"b"', b'"c"', b'"d"']
    assert (log.last_sequence(run_id, "p"), log.last_sequence(run_id, "nobody")) == (1, -1)
    log.close(target=run_id)
    assert log.append("again", target=run_id, producer="p", sequence=1) == 1


def test_in_a_transaction_it_shares_its_end(run_id):
    with transaction.atomic():
        assert log.append("a", target=run_id) == 0
        transaction.set_rollback(True)
    assert stored_chunks(run_id) == []
    with transaction.atomic():
        assert log.append("b", target=run_id) == 0
    assert stored_chunks(run_id) == [b'"b"']


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda run: log.append(7, target=run), ChunkInvalid),
        (lambda run: streams.append("log", object(), target=run), NotJson),
        (lambda run: streams.append("log", float("nan"), target=run), NotJson),
        (lambda run: log.append("x" * 512 * 1024, target=run), TooLarge),
        (lambda run: streams.append("", 1, target=run), InvalidOption),
        (lambda run: streams.append("k" * 256, 1, target=run), InvalidOption),
        (lambda run: streams.append("a\0", 1, target=run), NotJson),
        (lambda run: log.append("a"), NotInsideRun),
        (lambda run: log.append("a", target="run_missing"), RunNotFound),
        (lambda run: log.append("a", target=run, producer="p"), InvalidOption),
        (lambda run: log.append("a", target=run, producer="p", sequence=-1), InvalidOption),
        (lambda run: log.append("a", target=run, producer="p", sequence=1, record_id="r"), InvalidOption),
        (lambda run: log.read(run, start_index=-1), InvalidOption),
        (lambda run: log.read(run, start_index="1"), InvalidOption),
        (lambda run: log.read(run, start="first"), InvalidOption),
        (lambda run: log.read(run, timeout_in_seconds=0), InvalidOption),
        (lambda run: list(log.read("run_missing")), RunNotFound),
        (lambda run: list(log.read(run, timeout_in_seconds=0.05)), StreamTimeout),
        (lambda run: streams.define("a", str, on_retry="other"), InvalidOption),
    ],
)
def test_bad_input_is_a_clear_error_and_stores_nothing(run_id, call, error):
    with pytest.raises(error):
        call(run_id)
    assert not StreamChunk.objects.exists()


def test_a_signal_aborts_a_reader_and_says_where_to_go_on(run_id):
    for text in "abc":
        log.append(text, target=run_id)
    signal = threading.Event()
    seen = []
    with pytest.raises(StreamAborted) as caught:
        for chunk in log.read(run_id, signal=signal):
            seen.append(chunk)
            signal.set()
    assert (seen, caught.value.index) == (["a"], 1)


def test_what_was_removed_is_a_gap(run_id):
    for text in "abc":
        log.append(text, target=run_id)
    StreamChunk.objects.filter(index__lt=2).delete()
    Stream.objects.update(first_index=2)
    with pytest.raises(StreamGap, match="from 2 on"):
        list(log.read(run_id))
    runs.cancel(run_id)
    assert list(log.read(run_id, start_index=2)) == ["c"]


def test_a_plain_loop_on_an_event_loop_is_refused(run_id):
    async def read() -> None:
        list(log.read(run_id))

    with pytest.raises(SynchronousOnlyOperation):
        asyncio.run(read())


def test_a_new_attempt_goes_on_or_begins_anew():
    """Whether readers see the chunks of the attempt that failed is for the definition to say."""
    fresh = streams.define("fresh", int, on_retry="restart")
    handle = t.echo.trigger(1)
    Run.objects.update(max_attempts=2)
    reader = iter(fresh.read(handle.id))
    lease = _write(attempt_of(handle.id), handle.id, fresh, [1, 2])
    _write(lease, handle.id, log, ["1", "2"])
    assert [next(reader), next(reader)] == [1, 2]
    lifecycle.retry(lease, RunError("a", "b"), 0)
    lease = _write(attempt_of(handle.id), handle.id, fresh, [3])
    _write(lease, handle.id, log, ["3"])
    marker = next(reader)
    assert (type(marker), marker.attempt, marker.index) == (streams.StreamRestarted, 2, 2)
    assert next(reader) == 3
    runs.cancel(handle)
    assert list(fresh.read(handle.id)) == [3]
    marker, chunk = fresh.read(handle.id, start_index=1)  # who comes back has a chunk that is void now
    assert (type(marker), marker.index, chunk) == (streams.StreamRestarted, 2, 3)
    assert list(fresh.read(handle.id, start_index=3)) == []
    assert list(log.read(handle.id)) == ["1", "2", "3"]
    assert [record.attempt for record in log.read(handle.id).records()] == [1, 1, 2]


def attempt_of(run_id):
    (row,) = lifecycle.claim([t.echo.id], 1)
    return Lease(row.id, row.attempt, row.lease_token)


def _write(lease, run_id, stream, values):
    to = Target(stream.key, run_id, on_retry=stream.on_retry)
    append = to.append([stream._codec.encode(value) for value in values])
    append.lease = lease
    to.write(append)
    return lease
