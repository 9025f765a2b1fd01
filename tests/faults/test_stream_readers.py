"""Readers of a stream: changes at the worst moment, other processes, very long streams."""

import asyncio
import json
import re
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection, connections
from django.utils import timezone

from realtime_runs import runs, streams
from realtime_runs.engine.appending import Append, append_all
from realtime_runs.exceptions import RunNotFound, StreamGap
from realtime_runs.live import bell, stream_follow, stream_reading
from realtime_runs.live.hub import hub
from realtime_runs.live.loop import live_loop
from realtime_runs.live.stream_follow import Cursor
from realtime_runs.live.stream_reading import read_page
from realtime_runs.models import Run, Stream, StreamChunk, StreamName
from realtime_runs.models.bulk import insert_many
from realtime_runs.models.stream import OUTPUT
from tests import tasks as t
from tests.conftest import HOUR, Process, eventually, with_settings
from tests.following import everybody_left

pytestmark = pytest.mark.django_db(transaction=True)

log = streams.define("log", str)

LAYERS = ["channels_redis.core.RedisChannelLayer", "channels_redis.pubsub.RedisPubSubChannelLayer"]


@pytest.fixture(autouse=True)
def _no_backstop(live: Any) -> Iterator[None]:
    """What a reader gets comes by its bell."""
    yield
    everybody_left()


@pytest.fixture
def run_id() -> str:
    return t.echo.trigger(1, delay="1h").id


class Reader:
    """A loop over the stream in a thread of its own."""

    def __init__(self, run_id: str, kind: str) -> None:
        self.chunks: list[Any] = []
        self.reader = log.read(run_id)
        self.error: BaseException | None = None
        self._is_async = kind == "async for"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            if self._is_async:
                asyncio.run(self._read())
            else:
                for chunk in self.reader:
                    self.chunks.append(chunk)
        except BaseException as error:  # the test judges it
            self.error = error
        finally:
            connections.close_all()

    async def _read(self) -> None:
        async for chunk in self.reader:
            self.chunks.append(chunk)

    def ended(self) -> str:
        """Wait for its end; the reason. Raises what ended it."""
        self._thread.join(10)
        assert not self._thread.is_alive(), "it waits for what it has missed"
        if self.error is not None:
            raise self.error
        return self.reader.end_reason


# -- changes at the worst moment --------------------------------------------------------------------------------------


def append_two(run_id: str) -> None:
    log.append("b", target=run_id)
    log.append("c", target=run_id)


def append_and_close(run_id: str) -> None:
    append_two(run_id)
    log.close(target=run_id)


def append_and_end(run_id: str) -> None:
    append_two(run_id)
    runs.cancel(run_id)


def beside(fn: Callable[..., None], *args: Any) -> None:
    """In a thread of its own, since the caller may be an event loop; until all bells have been heard."""

    def call() -> None:
        fn(*args)
        connections.close_all()

    async def nothing() -> None: ...

    thread = threading.Thread(target=call)
    thread.start()
    thread.join(10)
    live_loop.start(nothing()).result(10)


# Where the reader is stopped: what it is about to call, or has just called.
POINTS = {
    "before joining": (hub, "join", "before"),
    "between joining and reading": (stream_follow, "read_page", "before"),
    "after reading the table": (stream_follow, "read_page", "after"),
    "before looking at the tail": (Cursor, "take_tail", "before"),
    "between looking at the tail and waiting": (Cursor, "take_tail", "after"),
}


@pytest.mark.parametrize("kind", ["for", "async for"])
@pytest.mark.parametrize("change", [append_two, append_and_close, append_and_end])
@pytest.mark.parametrize("point", POINTS)
def test_a_change_while_a_reader_is_about_to_wait_is_not_missed(
    monkeypatch: pytest.MonkeyPatch, run_id: str, point: str, change: Callable[[str], None], kind: str
) -> None:
    owner, name, moment = POINTS[point]
    original = getattr(owner, name)
    is_armed = [True]

    def interrupted(*args: Any) -> Any:
        if moment == "before" and is_armed:
            is_armed.clear()
            beside(change, run_id)
        result = original(*args)
        if is_armed:
            is_armed.clear()
            beside(change, run_id)
        return result

    log.append("a", target=run_id)
    monkeypatch.setattr(owner, name, interrupted)
    reader = Reader(run_id, kind)
    eventually(lambda: reader.chunks == ["a", "b", "c"], message="It waits for what it has missed")
    if change is append_two:
        log.close(target=run_id)
    assert reader.ended() == ("canceled" if change is append_and_end else "closed")
    assert reader.chunks == ["a", "b", "c"]


@pytest.mark.parametrize("kind", ["for", "async for"])
def test_a_stream_that_nobody_has_written_is_not_missed_when_it_begins_at_the_worst_moment(
    monkeypatch: pytest.MonkeyPatch, run_id: str, kind: str
) -> None:
    is_armed = [True]

    def interrupted(*args: Any) -> Any:
        page = read_page(*args)
        if is_armed:
            is_armed.clear()
            beside(append_two, run_id)
        return page

    monkeypatch.setattr(stream_follow, "read_page", interrupted)
    reader = Reader(run_id, kind)
    eventually(lambda: reader.chunks == ["b", "c"], message="It waits for what it has missed")
    log.close(target=run_id)
    assert reader.ended() == "closed"


# -- other processes --------------------------------------------------------------------------------------------------

READ = """
import sys, threading
import django

django.setup()
from realtime_runs import streams
from realtime_runs.live.hub import hub

def read():
    reader = streams.read(sys.argv[1], "log")
    indexes = [record.index for record in reader.records() if record.chunk == record.index]
    print(f"has read {len(indexes)} {indexes == list(range(len(indexes)))}", flush=True)  # in one piece

thread = threading.Thread(target=read)
thread.start()
while not hub.listener_count:
    threading.Event().wait(0.01)
print("reading", flush=True)
"""

WRITE = """
import sys, time
import django

django.setup()
from realtime_runs import streams

for number in range(300):
    streams.append("log", number, target=sys.argv[1])
    if number % 30 == 0:
        time.sleep(0.1)
streams.close("log", target=sys.argv[1])
print("has written", flush=True)
time.sleep(60)  # whoever may still have to ring
"""


def read_in_one_process_what_another_writes(start: Callable[..., Process], run_id: str, env: dict[str, str]) -> str:
    reader = start(["-c", READ, run_id], env=env)
    reader.wait_for_output("reading")
    writer = start(["-c", WRITE, run_id], env=env)
    writer.wait_for_output("has written", timeout=30)
    return reader.wait_for_output("has read", timeout=30)


def test_without_a_layer_another_process_reads_everything(
    run_id: str, server_env: dict[str, str], start_process: Callable[..., Process]
) -> None:
    env = with_settings(server_env, {"BACKSTOP_SECONDS": 0.1})
    assert "has read 300 True" in read_in_one_process_what_another_writes(start_process, run_id, env)


@pytest.mark.redis
@pytest.mark.parametrize("layer", LAYERS)
def test_with_a_layer_another_process_reads_everything_by_bells(
    redis_url: str, run_id: str, server_env: dict[str, str], start_process: Callable[..., Process], layer: str
) -> None:
    """Nobody looks by himself within the hour."""
    never = {"BACKSTOP_SECONDS": HOUR, "BACKSTOP_WITH_LAYER_SECONDS": HOUR}
    env = with_settings({**server_env, "REDIS_URL": redis_url, "CHANNEL_LAYER": layer}, never)
    assert "has read 300 True" in read_in_one_process_what_another_writes(start_process, run_id, env)


# -- what was removed -------------------------------------------------------------------------------------------------


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What each read for the tails of this process was asked for."""
    asked: list[Any] = []
    read_missing = stream_reading.read_missing

    def watched(wanted: Any) -> Any:
        asked.append(wanted)
        return read_missing(wanted)

    monkeypatch.setattr(stream_reading, "read_missing", watched)
    return asked


def follows(run_id: str, kind: str) -> Reader:
    """A reader that has taken `a` from the table and `b` from the tail."""
    log.append("a", target=run_id)
    reader = Reader(run_id, kind)
    eventually(lambda: reader.chunks == ["a"])
    log.append("b", target=run_id)
    eventually(lambda: reader.chunks == ["a", "b"])
    return reader


def hear_of(run_id: str, count: int) -> None:
    """The bell of another process."""
    live_loop.call(hub._streams.hear_counts, run_id, {"output/log": count})


def number_of(reads: list[Any]) -> int:
    """How many there are when the hub has had time for very many."""
    eventually(lambda: reads)
    time.sleep(0.3)
    return len(reads)


@pytest.mark.parametrize("kind", ["for", "async for"])
def test_a_stream_that_was_removed_with_its_run_is_not_looked_for_again_and_again(
    run_id: str, kind: str, reads: list[Any]
) -> None:
    reader = follows(run_id, kind)
    Run.objects.filter(pk=run_id).delete()
    reads.clear()
    hear_of(run_id, 5)
    assert number_of(reads) <= 2
    live_loop.start(hub._look(long=False)).result(10)
    with pytest.raises(RunNotFound):
        reader.ended()


@pytest.mark.parametrize("first_index", [5, 8])
@pytest.mark.parametrize("kind", ["for", "async for"])
def test_a_reader_whose_next_chunks_were_removed_is_told_and_they_are_not_looked_for_again_and_again(
    monkeypatch: pytest.MonkeyPatch, run_id: str, kind: str, first_index: int, reads: list[Any]
) -> None:
    reader = follows(run_id, kind)
    monkeypatch.setattr(bell, "_in_process_chunks", [])  # what follows is not heard, as if from elsewhere
    for number in range(2, 8):
        log.append(str(number), target=run_id)
    Stream.objects.update(first_index=first_index)
    StreamChunk.objects.filter(index__lt=first_index).delete()
    reads.clear()
    hear_of(run_id, 8)
    with pytest.raises(StreamGap) as caught:
        reader.ended()
    assert caught.value.first_index == first_index
    assert number_of(reads) <= 2


# -- very long streams ------------------------------------------------------------------------------------------------


def make_long(run_id: str, count: int) -> None:
    """Give its stream so many chunks, and close it."""
    append_all([Append(StreamName(run_id, OUTPUT, "log"), [b"0"])])
    stream, now = Stream.objects.get(), timezone.now()
    fields = ("stream", "index", "data", "record_id", "producer", "sequence", "attempt", "created_at")
    rows = [(stream.pk, number, b'"%0100d"' % number, "", "p", number, 0, now) for number in range(1, count)]
    insert_many(StreamChunk, fields, rows)
    Stream.objects.update(next_index=count, closed_at=now, end_reason="closed")


def peak_of_reading(run_id: str, count: int) -> int:
    """Bytes that were in use at most."""
    tracemalloc.start()
    for number, record in enumerate(streams.read(run_id, "log").records()):
        assert number == record.index
        if number == count - 1:
            break
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_a_reader_needs_as_much_memory_for_many_chunks_as_for_a_few(run_id: str) -> None:
    make_long(run_id, 50_000)
    few, all_of_them = (peak_of_reading(run_id, count) for count in (5000, 50_000))
    assert all_of_them < 2 * few


def test_a_reader_begins_anywhere_without_reading_what_is_before(run_id: str) -> None:
    make_long(run_id, 20_000)
    statements: list[tuple[str, Any]] = []

    def look(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        statements.append((sql, params))
        return execute(sql, params, many, context)

    for index in (0, 10_000, 19_990, 20_000):
        statements.clear()
        with connection.execute_wrapper(look):
            page = read_page(StreamName(run_id, OUTPUT, "log"), index, 64)
        assert [chunk.index for chunk in page.chunks] == list(range(index, min(index + 64, 20_000)))
        _, of_chunks = statements  # the other one reads the stream
        plan = explain(*of_chunks)
        assert re.search(r"""stream_id ?= ?.* AND .*index\\?"?\)? ?>""", plan), plan
        assert "TEMP B-TREE" not in plan, plan
        assert "Sort" not in plan, plan


def explain(sql: str, params: Any) -> str:
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute(f"EXPLAIN QUERY PLAN {sql}", params)
            return "\n".join(row[3] for row in cursor.fetchall())
        cursor.execute("ANALYZE realtime_runs_stream_chunk")
        cursor.execute(f"EXPLAIN (FORMAT JSON) {sql}", params)
        plan = json.dumps(cursor.fetchone()[0])
        assert "chunk_index_once_per_stream" in plan, plan
        return plan


def test_a_reader_that_never_comes_slows_nobody(run_id: str) -> None:
    """Neither who appends nor who reads beside it, and what is kept for it has a bound."""
    log.append("first", target=run_id)
    slow = iter(log.read(run_id))
    assert next(slow) == "first"
    quick = Reader(run_id, "for")
    with log.writer(target=run_id) as writer:
        for number in range(5000):
            writer.write(str(number))
    log.close(target=run_id)
    assert quick.ended() == "closed"
    assert quick.chunks == ["first", *map(str, range(5000))]
    (tail,) = hub._streams._tails.values()
    assert len(tail._chunks) <= 2000
    assert list(slow) == [str(number) for number in range(5000)]
