"""Pipes and writers: what they store, when a run waits for them, and where the error of a source goes."""

import asyncio
import json
import threading
from functools import partial

import pytest
from django.db import connections

from realtime_runs import runs, streams
from realtime_runs.engine import pipes as pipes_module
from realtime_runs.exceptions import ChunkInvalid, PipeOverrun, StreamClosed
from realtime_runs.models import Stream, StreamChunk
from tests import tasks as t
from tests import tasks_pipes as p
from tests.conftest import eventually
from tests.stored_chunks import stored_chunks

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("nobody_executes")]

words = p.words


@pytest.fixture
def run_id() -> str:
    return t.echo.trigger(1, delay="1h").id


def stored(run_id: str, key: str = "words") -> list[str]:
    return [json.loads(data) for data in stored_chunks(run_id, key)]


def end_reason(run_id):
    return Stream.objects.get(run=run_id).end_reason


async def counted(count):
    for number in range(count):
        yield str(number)


NUMBERS = [str(number) for number in range(2000)]


def test_a_pipe_stores_everything_in_order(run_id):
    words.pipe((str(number) for number in range(2000)), target=run_id).wait_until_complete()
    assert stored(run_id) == NUMBERS


@pytest.mark.parametrize("source", [lambda: counted(2000), lambda: iter(NUMBERS)], ids=["async", "sync"])
def test_an_async_pipe_takes_any_iterable(run_id, source):
    async def pipe() -> None:
        await words.apipe(source(), target=run_id).wait_until_complete()

    asyncio.run(pipe())
    assert stored(run_id) == NUMBERS


def test_an_async_source_can_be_piped_in_sync_code(run_id):
    words.pipe(counted(50), target=run_id).wait_until_complete()
    assert stored(run_id) == NUMBERS[:50]
    connections.close_all()


def test_a_loop_over_a_pipe_sees_what_it_stores(run_id):
    assert list(words.pipe(iter(NUMBERS[:500]), target=run_id)) == NUMBERS[:500] == stored(run_id)


def test_a_loop_over_an_async_pipe_sees_what_it_stores(run_id):
    async def loop() -> list[str]:
        return [chunk async for chunk in words.apipe(counted(2000), target=run_id)]

    assert asyncio.run(loop()) == NUMBERS == stored(run_id)


def test_a_slow_loop_slows_the_source_and_a_late_one_is_refused(run_id, monkeypatch):
    monkeypatch.setattr(pipes_module, "_MOST_HELD", 5)
    taken: list[int] = []
    has_begun = threading.Event()

    def source():
        has_begun.wait(10)
        for number in range(20):
            taken.append(number)
            yield str(number)

    loop = iter(words.pipe(source(), target=run_id))
    threading.Timer(0.1, has_begun.set).start()
    assert next(loop) == "0"
    eventually(lambda: len(taken) >= 6)
    assert len(taken) <= 8
    assert list(loop) == NUMBERS[1:20]
    late = words.pipe(iter(NUMBERS[:20]), target=run_id)
    late.done.result(10)
    with pytest.raises(PipeOverrun):
        list(late)
    assert stored(run_id) == NUMBERS[:20] * 2


@pytest.mark.parametrize("consume", [list, lambda pipe: pipe.wait_until_complete()], ids=["loop", "wait"])
def test_the_error_of_a_source_is_raised_and_readers_see_it(run_id, consume):
    def source():
        yield "a"
        raise ValueError("dry")

    with pytest.raises(ValueError, match="dry"):
        consume(words.pipe(source(), target=run_id))
    reader = words.read(run_id)
    assert (list(reader), reader.end_reason) == (["a"], "error")


def test_a_chunk_of_the_wrong_type_ends_the_pipe(run_id):
    with pytest.raises(ChunkInvalid):
        words.pipe(["a", 7], target=run_id).wait_until_complete()
    assert (stored(run_id), end_reason(run_id)) == (["a"], "error")


def test_a_closed_stream_ends_the_pipe(run_id):
    words.close(target=run_id)
    with pytest.raises(StreamClosed):
        words.pipe(iter(NUMBERS), target=run_id).wait_until_complete()
    assert stored(run_id) == []


def test_a_writer_stores_all_that_was_written_and_merged(run_id):
    with words.writer(target=run_id) as writer:
        for text in NUMBERS[:100]:
            writer.write(text)
        writer.merge(iter("ab"))
    assert [text for text in stored(run_id) if text.isdigit()] == NUMBERS[:100]
    assert sorted(set(stored(run_id)) - set(NUMBERS)) == ["a", "b"]


def test_an_async_writer_stores_all_that_was_written_and_merged(run_id):
    async def write() -> None:
        async with streams.writer("words", target=run_id) as writer:
            writer.merge(counted(100))
            await writer.awrite("x")

    asyncio.run(write())
    assert sorted(stored(run_id)) == sorted([*NUMBERS[:100], "x"])


def test_many_pipes_at_once_share_commits_and_keep_their_order(run_id):
    other = t.echo.trigger(1, delay="1h").id
    sources = [(run, key) for run in (run_id, other) for key in ("a", "b", "c")]
    begun = [streams.pipe(key, iter(NUMBERS[:300]), target=run) for run, key in sources]
    for pipe in begun:
        pipe.wait_until_complete()
    assert all(stored(run, key) == NUMBERS[:300] for run, key in sources)


# -- in runs, executed by a real worker -------------------------------------------------------------------------------


def final(*handles):
    ids = [handle.id for handle in handles]
    eventually(lambda: all(runs.retrieve(run_id).is_completed for run_id in ids), timeout=30)
    return [runs.retrieve(run_id) for run_id in ids]


def test_a_run_has_its_pipes_stored_before_it_ends_and_fails_with_their_errors(worker):
    worker()
    left = [p.p_left.trigger(30), p.p_left_sync.trigger(30), p.p_quick.trigger(None)]
    failing = [p.p_failing.trigger(None), p.p_failing_sync.trigger(None)]
    heard, parent = p.p_heard.trigger(None), p.p_children.trigger(None)
    assert [run.status for run in final(*left)] == ["COMPLETED"] * 3
    assert [len(stored(handle.id)) for handle in left] == [30, 30, 500]
    assert [end_reason(handle.id) for handle in left] == ["completed"] * 3
    for run, name in zip(final(*failing), ["ValueError", "ValueError"], strict=True):
        assert (run.status, run.error.name) == ("FAILED", name)
    assert [end_reason(handle.id) for handle in failing] == ["error", "error"]
    assert final(heard)[0].output == "the source is dry"
    (run,) = final(parent)
    assert (run.status, stored(run.id)) == ("COMPLETED", ["to the parent", "to the root"])


def test_a_canceled_run_ends_its_pipes_and_the_worker_lives_on(worker):
    worker(CONCURRENCY=1, SYNC_CONCURRENCY=1)
    endless = [p.p_endless.trigger(None), p.p_endless_sync.trigger(None)]
    for handle in endless:
        eventually(partial(StreamChunk.objects.filter(stream__run=handle.id).exists))
        runs.cancel(handle)
    counts = [len(stored(handle.id)) for handle in endless]
    assert [run.status for run in final(p.p_left.trigger(2), p.p_left_sync.trigger(2))] == ["COMPLETED"] * 2
    assert [len(stored(handle.id)) for handle in endless] == counts
    assert [end_reason(handle.id) for handle in endless] == ["canceled"] * 2


def test_what_a_pipe_has_taken_is_stored_when_the_worker_is_told_to_go(worker, tmp_path):
    log = tmp_path / "taken"
    process = worker(SHUTDOWN_GRACE_SECONDS=0.2)
    handle = p.p_logged.trigger(str(log))
    eventually(lambda: log.exists() and len(log.read_text().splitlines()) > 1000)
    process.terminate()
    assert process.wait() == 0
    taken = log.read_text().splitlines()
    assert stored(handle.id)[: len(taken)] == taken
    assert runs.retrieve(handle.id).status == "QUEUED"


def test_the_immediate_backend_pipes_too(settings):
    settings.REALTIME_RUNS = {
        **settings.REALTIME_RUNS,
        "BACKEND": "realtime_runs.engine.backends.immediate.ImmediateBackend",
    }
    handles = [p.p_left.trigger(3), p.p_left_sync.trigger(3)]
    assert [stored(handle.id) for handle in handles] == [["0", "1", "2"]] * 2
    assert not [thread for thread in threading.enumerate() if thread.name == "realtime-runs-pipe"]
