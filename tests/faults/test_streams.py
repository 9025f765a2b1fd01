"""Promise 4: a reader of a stream sees 0..N-1, each once, in order, whatever happens to readers, writers and bells."""

import asyncio
import itertools
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, connections

from realtime_runs import runs, streams
from realtime_runs.engine import lifecycle
from realtime_runs.engine.context import Lease
from realtime_runs.engine.writing import Target
from realtime_runs.exceptions import LeaseLost, StreamClosed
from realtime_runs.live import bell, stream_follow
from realtime_runs.models import FromNow, Run, Stream, StreamChunk
from tests import tasks as t
from tests.conftest import Process, eventually

pytestmark = pytest.mark.django_db(transaction=True)

log = streams.define("log", str)

CHUNKS = 5000  # of each of the producers
PRODUCERS = ["thread", "process-1", "process-2", "killed"]

# Goes on behind what it had stored, and repeats a few, as one does who is not sure.
PRODUCE = """
import sys
import django

django.setup()
from realtime_runs import streams
from realtime_runs.engine.writing import Target

run_id, producer, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
log = streams.define("log", str)
first = max(0, log.last_sequence(run_id, producer) - 20)
for start in range(first, count, 25):
    numbers = list(range(start, min(start + 25, count)))
    to = Target("log", run_id)
    to.write(to.append([b'"%s:%d"' % (producer.encode(), n) for n in numbers], producer=producer, sequences=numbers))
    if start == first:
        print("producing", flush=True)
print("has produced", flush=True)
"""


def new_run() -> str:
    return t.echo.trigger(1, delay="1h").id


class CutReader:
    """Reads in a thread of its own, is cut off after a random number of chunks, and goes on from there."""

    def __init__(self, run_id: str, seed: int) -> None:
        self.records: list[tuple[int, str]] = []
        self.cuts = 0
        self.error: BaseException | None = None
        self._run_id = run_id
        self._random = random.Random(seed)
        self._is_async = bool(seed % 2)
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        try:
            index = 0
            while True:
                reader = log.read(self._run_id, start_index=index).records()
                left = self._random.randrange(1, 4000)
                if self._is_async:
                    asyncio.run(self._take_async(reader, left))
                else:
                    self._take(reader, left)
                index = reader.next_index
                if reader.end_reason:
                    return
                self.cuts += 1
        except BaseException as error:
            self.error = error
        finally:
            connections.close_all()

    def _take(self, reader: Any, left: int) -> None:
        for record in reader:
            self.records.append((record.index, record.chunk))
            left -= 1
            if not left:
                return

    async def _take_async(self, reader: Any, left: int) -> None:
        async for record in reader:
            self.records.append((record.index, record.chunk))
            left -= 1
            if not left:
                return


@pytest.mark.timeout(120)
def test_eight_readers_see_what_four_producers_wrote_once_and_in_order(
    live: Any, monkeypatch: pytest.MonkeyPatch, server_env: dict[str, str], start_process: Callable[..., Process]
) -> None:
    live(BACKSTOP_SECONDS=0.1)
    chance = random.Random(4)
    ring = bell._ring_chunks
    monkeypatch.setattr(bell, "_ring_chunks", lambda news: chance.random() < 0.5 and ring(news))
    run_id = new_run()

    def produce(producer: str) -> Process:
        return start_process(["-c", PRODUCE, run_id, producer, str(CHUNKS)], env=server_env)

    readers = [CutReader(run_id, seed) for seed in range(8)]
    victim, *others = [produce(producer) for producer in reversed(PRODUCERS[1:])]
    eventually(lambda: log.last_sequence(run_id, "killed") > 100, interval=0.005)
    victim.kill9()
    assert log.last_sequence(run_id, "killed") < CHUNKS - 1, "it was killed in the middle"
    for start in range(0, CHUNKS, 25):
        to = Target("log", run_id)
        to.write(to.append([b'"thread:%d"' % number for number in range(start, start + 25)]))
    for process in [produce("killed"), *others]:
        process.wait_for_output("has produced", timeout=60)
    runs.cancel(run_id)
    total = CHUNKS * len(PRODUCERS)
    for reader in readers:
        reader.thread.join(60)
        assert (reader.error, reader.thread.is_alive()) == (None, False)
        assert [index for index, _ in reader.records] == list(range(total))
        for producer in PRODUCERS:
            texts = [chunk for _, chunk in reader.records if chunk.startswith(f"{producer}:")]
            assert texts == [f"{producer}:{number}" for number in range(CHUNKS)]
    assert sum(reader.cuts for reader in readers) > 20


def test_what_is_appended_while_a_stream_is_closed_is_read_or_refused(in_threads: Any) -> None:
    """Nothing is accepted behind the end, and nothing that was accepted is lost."""
    ids = [new_run() for _ in range(40)]
    accepted: list[list[int]] = [[] for _ in ids]

    def race(turn: Any) -> None:
        number = next(turn)
        for place, run_id in enumerate(ids):
            if number == 0:
                time.sleep(0.002 * (place % 4))
                runs.cancel(run_id) if place % 2 else log.close(target=run_id)
            else:
                try:
                    while True:
                        accepted[place].append(log.append("x", target=run_id))
                except StreamClosed:
                    continue

    for outcome in in_threads(3, race, itertools.count()):
        assert outcome is None
    for run_id, indexes in zip(ids, accepted, strict=True):
        reader = log.read(run_id).records()
        assert [record.index for record in reader] == sorted(indexes)
        assert reader.end_reason in ("canceled", "closed")
        if indexes:
            assert sorted(indexes) == list(range(Stream.objects.get(run=run_id).next_index))


def test_an_attempt_that_lost_its_lease_stores_nothing() -> None:
    run_id = t.echo.trigger(1).id

    def claim() -> Lease:
        (row,) = lifecycle.claim([t.echo.id], 1, run_ids=[run_id])
        return Lease(row.id, row.attempt, row.lease_token)

    def append(lease: Lease, text: bytes) -> None:
        to = Target("log", run_id)
        one = to.append([text])
        one.lease = lease
        to.write(one)

    Run.objects.filter(pk=run_id).update(max_attempts=2)
    zombie = claim()
    append(zombie, b'"first"')
    Run.objects.filter(pk=run_id).update(lease_until=FromNow(-1))
    lifecycle.reclaim(run_id)
    with pytest.raises(LeaseLost):
        append(zombie, b'"queued"')
    second = claim()
    with pytest.raises(LeaseLost):
        append(zombie, b'"late"')
    append(second, b'"second"')
    assert [bytes(chunk.data) for chunk in StreamChunk.objects.order_by("index")] == [b'"first"', b'"second"']


@pytest.mark.postgres
def test_a_reader_goes_on_when_its_connections_are_cut(live: Any) -> None:
    live(BACKSTOP_SECONDS=0.1)
    run_id = new_run()
    readers = [CutReader(run_id, seed) for seed in range(4)]
    for number in range(300):
        log.append(str(number), target=run_id)
        if number % 60 == 30:
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                    " AND pid <> pg_backend_pid() AND state = 'idle'"
                )
    runs.cancel(run_id)
    for reader in readers:
        reader.thread.join(30)
        assert (reader.error, reader.records) == (None, [(number, str(number)) for number in range(300)])


def test_many_readers_of_a_stream_cost_no_query_each(live: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    live(BACKSTOP_SECONDS=3600)
    pages: list[Any] = []
    read_page = stream_follow.read_page
    monkeypatch.setattr(stream_follow, "read_page", lambda *args: (pages.append(args), read_page(*args))[1])
    run_id = new_run()
    log.append("first", target=run_id)

    async def follow() -> list[str]:
        return [chunk async for chunk in log.read(run_id)]

    async def crowd() -> list[list[str]]:
        return await asyncio.gather(*(follow() for _ in range(100)))

    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(asyncio.run(crowd())))
    thread.start()
    eventually(lambda: len(pages) == 100)
    for number in range(200):
        log.append(str(number), target=run_id)
    log.close(target=run_id)
    thread.join(30)
    assert found == [[["first", *map(str, range(200))]] * 100]
    assert len(pages) == 100, "one when each began"
