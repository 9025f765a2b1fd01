"""Runs and their streams in one subscription."""

import asyncio
import threading

import pytest
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connections

from realtime_runs import runs, streams
from realtime_runs.engine import lifecycle
from realtime_runs.engine.appending import Append
from realtime_runs.engine.context import Lease
from realtime_runs.live.chunks import End
from realtime_runs.live.hub import hub
from realtime_runs.live.snapshot import RunError
from realtime_runs.models import Run, StreamName
from realtime_runs.runs import RunUpdate, StreamChunk
from tests import tasks as t
from tests.conftest import eventually

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("nobody_executes"),
]

numbers = streams.define("numbers", int)


def new_run(**options):
    return t.echo.trigger(1, delay="1h", **options).id


class Collector:
    """Follows in a thread of its own, with `for` or `async for`."""

    def __init__(self, subscription, kind):
        self.items = []
        self.error = None
        self._subscription = subscription
        self.thread = threading.Thread(target=self._read if kind == "for" else self._aread, daemon=True)
        self.thread.start()

    def _read(self):
        try:
            for item in self._subscription:
                self.items.append(item)
        except Exception as error:
            self.error = error
        finally:
            connections.close_all()

    def _aread(self):
        async def read():
            async for item in self._subscription:
                self.items.append(item)

        try:
            asyncio.run(read())
        except Exception as error:
            self.error = error

    def ended(self):
        self.thread.join(10)
        assert not self.thread.is_alive()
        assert self.error is None
        return self.items

    def chunks(self):
        return [(item.run.id, item.stream, item.index, item.chunk) for item in self.items if type(item) is StreamChunk]

    def has(self, count):
        eventually(lambda: len(self.chunks()) >= count or self.error)
        assert self.error is None
        return self


@pytest.fixture(params=["for", "async for"])
def follow(request):
    collectors = []

    def start(subscription):
        collectors.append((subscription, Collector(subscription, request.param)))
        return collectors[-1][1]

    yield start
    for subscription, collector in collectors:
        subscription.close()
        collector.thread.join(10)
        assert not collector.thread.is_alive()
    eventually(lambda: hub.listener_count == 0)


def test_a_run_is_followed_with_all_its_streams_to_their_ends(follow):
    run_id = new_run()
    numbers.append(1, target=run_id)
    reader = follow(runs.subscribe_to_run(run_id).with_streams()).has(1)
    numbers.append(2, target=run_id)
    streams.append("later", {"a": 1}, target=run_id)
    runs.add_tags(run_id, "a")
    reader.has(3)
    numbers.append(3, target=run_id)
    runs.cancel(run_id)
    items = reader.ended()
    assert sorted(reader.chunks()) == [
        (run_id, "later", 0, {"a": 1}),
        (run_id, "numbers", 0, 1),
        (run_id, "numbers", 1, 2),
        (run_id, "numbers", 2, 3),
    ]
    versions = [item.run.version for item in items if type(item) is RunUpdate]
    assert versions == sorted(set(versions))
    assert items[0].run.id == run_id
    assert [item for item in items if type(item) is RunUpdate][-1].run.is_cancelled


def test_only_the_streams_that_are_named_are_read_with_their_types(follow):
    run_id = new_run()
    streams.append("other", 1, target=run_id)
    numbers.append(7, target=run_id)
    runs.cancel(run_id)
    reader = follow(runs.subscribe_to_run(run_id).with_streams(numbers))
    reader.ended()
    assert reader.chunks() == [(run_id, "numbers", 0, 7)]


def test_runs_of_a_tag_are_followed_with_their_streams_as_they_appear(follow):
    first = new_run(tags="a")
    reader = follow(runs.subscribe_to_runs_with_tag("a").with_streams("numbers"))
    numbers.append(1, target=first)
    reader.has(1)
    second = new_run(tags="a")
    numbers.append(2, target=second)
    reader.has(2)
    runs.cancel(first)
    numbers.append(3, target=second)
    reader.has(3)
    assert reader.chunks() == [(first, "numbers", 0, 1), (second, "numbers", 0, 2), (second, "numbers", 1, 3)]


def test_a_batch_is_followed_until_all_is_over(follow):
    handle = t.echo.batch_trigger([1, 2], delay="1h")
    reader = follow(runs.subscribe_to_batch(handle.id, stop_on_completion=True).with_streams())
    for run_id in handle.run_ids:
        numbers.append(1, target=run_id)
    for run_id in handle.run_ids:
        runs.cancel(run_id)
    reader.ended()
    assert sorted(reader.chunks()) == sorted((run_id, "numbers", 0, 1) for run_id in handle.run_ids)


def test_many_chunks_come_once_and_in_order(follow):
    run_id = new_run()
    reader = follow(runs.subscribe_to_run(run_id).with_streams())
    keys = ["a", "b", "c"]
    begun = [streams.pipe(key, iter(range(1500)), target=run_id) for key in keys]
    for pipe in begun:
        pipe.wait_until_complete()
    runs.cancel(run_id)
    reader.ended()
    for key in keys:
        assert [chunk for _, stream, _, chunk in reader.chunks() if stream == key] == list(range(1500))


def test_what_a_new_attempt_adds_to_a_stream_that_an_earlier_one_closed_is_not_missed(follow):
    run_id = t.echo.trigger(1).id
    Run.objects.update(max_attempts=2)

    def attempt(*values, closes=None):
        (row,) = lifecycle.claim([t.echo.id], 1, run_ids=[run_id])
        lease = Lease(row.id, row.attempt, row.lease_token)
        for value in values:
            Append(StreamName(run_id, "output", "numbers"), [b"%d" % value], lease)()
        if closes:
            Append(StreamName(run_id, "output", "numbers"), [], lease, closes=End(closes))()
        return lease

    reader = follow(runs.subscribe_to_run(run_id).with_streams())
    first = attempt(1, 2, closes="error")
    reader.has(2)
    lifecycle.retry(first, RunError("ValueError", "the source was dry"), 0)
    attempt(3)
    reader.has(3)
    runs.cancel(run_id)
    reader.ended()
    assert [chunk for *_, chunk in reader.chunks()] == [1, 2, 3]


def test_a_signal_ends_it(follow):
    signal = threading.Event()
    reader = follow(runs.subscribe_to_run(new_run(), signal=signal).with_streams())
    eventually(lambda: reader.items)
    signal.set()
    assert len(reader.ended()) == 1


def test_a_plain_loop_on_an_event_loop_is_refused():
    async def read():
        list(runs.subscribe_to_run("run_x").with_streams())

    with pytest.raises(SynchronousOnlyOperation):
        asyncio.run(read())
