"""What one may expect of the API, in a Django project and over HTTP alike."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta

import pytest
from django.core.exceptions import SynchronousOnlyOperation

from realtime_runs.exceptions import (
    BatchNotFound,
    InvalidInput,
    InvalidOption,
    InvalidTransition,
    NotJson,
    PayloadInvalid,
    PollTimeout,
    RunNotFound,
    StreamAborted,
    StreamClosed,
    StreamTimeout,
    TooLarge,
    UnknownTask,
    WaitTokenNotFound,
)
from realtime_runs.live.items import RunUpdate, StreamChunk
from realtime_runs.live.realtime_run import RealtimeRun

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(90)]


def test_runs_are_triggered_looked_at_listed_and_changed(api):
    handle = api.tasks.trigger("echo", {"a": [1, None, "é"]}, tags=["x", "y"], metadata={"m": 1}, idempotency_key="k")
    assert handle.is_cached is False
    again = api.tasks.trigger("echo", "other", idempotency_key="k")
    assert (again.id, again.is_cached) == (handle.id, True)
    run = api.runs.poll(handle, interval=0.05, timeout=20)
    assert isinstance(run, RealtimeRun)
    assert (run.id, run.task_identifier, run.status, run.is_success) == (handle.id, "echo", "COMPLETED", True)
    assert (run.payload, run.output) == ({"a": [1, None, "é"]}, {"a": [1, None, "é"]})
    assert (run.tags, run.metadata, run.attempt_count, run.idempotency_key) == (("x", "y"), {"m": 1}, 1, "k")
    assert run.created_at <= run.started_at <= run.finished_at
    assert (run.error, run.batch_id, run.depth) == (None, None, 0)
    assert api.runs.retrieve(run).version == run.version

    delayed = api.tasks.trigger("echo", "text", delay=timedelta(hours=1), queue="q", priority=2, ttl="2h", is_test=True)
    run = api.runs.retrieve(delayed)
    assert (run.status, run.queue, run.priority, run.ttl, run.is_test) == ("DELAYED", "q", 2, "2h", True)
    assert api.runs.reschedule(delayed, "2h").delayed_until - datetime.now(UTC) > timedelta(minutes=100)
    assert api.runs.add_tags(delayed, ["z"]).tags == ("z",)
    with pytest.raises(PollTimeout):
        api.runs.poll(delayed, interval=0.05, timeout=0.1)
    assert api.runs.cancel(delayed).is_cancelled
    assert api.runs.cancel(delayed.id).is_cancelled
    with pytest.raises(InvalidTransition) as refused:
        api.runs.reschedule(delayed, "1h")
    assert (refused.value.run_id, refused.value.status) == (delayed.id, "CANCELED")
    replayed = api.runs.replay(handle, payload={"new": 1})
    assert api.runs.poll(replayed, interval=0.05, timeout=20).output == {"new": 1}

    page = api.runs.list(page_size=2)
    assert [one.id for one in page] == [replayed.id, delayed.id, handle.id]
    assert [one.id for one in page.data] == [replayed.id, delayed.id]
    assert [one.id for one in api.runs.list(status="CANCELED", task=["echo"], tag="z", is_test=True)] == [delayed.id]
    failed = api.runs.poll(api.tasks.trigger("fail", {"message": "broken"}), interval=0.05, timeout=20)
    assert (failed.status, failed.error.name, failed.error.message) == ("FAILED", "RuntimeError", "broken")
    assert "Traceback" in failed.error.stack_trace


def test_batches_are_made_whole_or_not_at_all(api):
    handle = api.batch.trigger([{"task": "echo", "payload": 1}, {"task": "fail", "options": {"tags": ["b"]}}])
    assert handle.run_count == 2
    assert [api.runs.retrieve(run_id).task_identifier for run_id in handle.run_ids] == ["echo", "fail"]
    for run_id in handle.run_ids:
        api.runs.poll(run_id, interval=0.05, timeout=20)
    state = api.batch.retrieve(handle)
    assert (state.id, state.run_ids, state.is_completed) == (handle.id, handle.run_ids, True)
    assert api.tasks.batch_trigger("echo", [1, 2, 3], delay="1h").run_count == 3
    with pytest.raises(InvalidInput):
        api.batch.trigger([{"task": "echo"}, {"task": "progress-task", "payload": {"items": 5}}])
    with pytest.raises(InvalidInput):
        api.batch.trigger([])
    with pytest.raises(BatchNotFound):
        api.batch.retrieve("batch_nothing")
    assert len(list(api.runs.list(page_size=100))) == 5


def test_a_batch_is_followed_to_its_end_if_wanted(api):
    handle = api.tasks.batch_trigger("echo", ["a", "b"])
    last = {run.id: run for run in api.runs.subscribe_to_batch(handle, stop_on_completion=True)}
    assert [last[run_id].output for run_id in handle.run_ids] == ["a", "b"]
    with pytest.raises(BatchNotFound):
        list(api.runs.subscribe_to_batch("batch_nothing", stop_on_completion=True))


def test_durations_times_and_values_are_taken_in_every_form(api):
    options = {"idempotency_key": "k", "idempotency_key_ttl": "1h30m", "idempotency_key_as_written": "as I wrote it"}
    soon = datetime.now(UTC) + timedelta(hours=3)
    first = api.tasks.trigger(
        "echo", {"at": soon, "one of": {7}}, delay=soon, max_duration=timedelta(minutes=1), **options
    )
    run = api.runs.retrieve(first)
    assert (run.idempotency_key, run.max_duration) == ("as I wrote it", 60)
    assert abs(run.delayed_until - soon) < timedelta(seconds=10)
    assert run.payload["one of"] == [7]
    assert datetime.fromisoformat(run.payload["at"]) == soon
    assert api.tasks.trigger("echo", **options).is_cached
    text = 'say "ü", \u2028 and 10**400'
    second = api.tasks.trigger("echo", text, delay=10_000)
    assert api.runs.retrieve(second).payload == text
    number = api.tasks.trigger("echo", 10**400, delay=10_000)
    assert api.runs.retrieve(number).payload == 10**400
    for filters in ({"period": timedelta(hours=1)}, {"period": 3600}, {"created_after": soon - timedelta(hours=4)}):
        assert len(list(api.runs.list(**filters))) == 3
    assert api.runs.list(created_before=soon - timedelta(hours=4)).data == []
    for filters in ({"created_after": datetime(2020, 1, 1)}, {"status": "SLEEPY"}, {"after": "run_nothing"}, {"page_size": 0}):  # fmt: skip
        with pytest.raises(InvalidOption):
            api.runs.list(**filters)
    with pytest.raises(TypeError):
        api.runs.list(colour="red")
    assert (
        api.wait.create_token(timeout=0, idempotency_key_ttl=timedelta(hours=1), idempotency_key="k").timeout_at < soon
    )


def test_mistakes_are_the_same_errors(api):
    with pytest.raises(UnknownTask):
        api.tasks.trigger("nothing")
    with pytest.raises(PayloadInvalid) as caught:
        api.tasks.trigger("progress-task", {"items": 5})
    assert (caught.value.task_id, caught.value.errors[0]["loc"]) == ("progress-task", ("items",))
    for options in ({"delay": "soon"}, {"max_attempts": 0}, {"delay": datetime(2020, 1, 1)}):
        with pytest.raises(InvalidOption):
            api.tasks.trigger("echo", **options)
    with pytest.raises(TooLarge) as large:
        api.tasks.trigger("echo", tags=[str(number) for number in range(11)])
    assert (large.value.size, large.value.limit, large.value.unit) == (11, 10, "tags")
    for payload in (float("nan"), object(), "\0", "\ud800"):
        with pytest.raises(NotJson):
            api.tasks.trigger("echo", payload)
    with pytest.raises(TypeError):
        api.tasks.trigger("echo", colour="red")
    for call in (api.runs.retrieve, api.runs.cancel, api.runs.replay, lambda run: list(api.runs.subscribe_to_run(run))):
        with pytest.raises(RunNotFound):
            call("run_nothing")
    with pytest.raises(RunNotFound):
        list(api.streams.read("run_nothing"))
    for wrong in ({"start_index": -1}, {"start": "first"}):
        with pytest.raises(InvalidOption):
            api.streams.read("run_x", **wrong)


def test_a_run_is_followed_to_its_end(api):
    handle = api.tasks.trigger("progress-task", {"items": ["a", "b", "c"], "delayMs": 200})
    seen = list(api.runs.subscribe_to_run(handle))
    versions = [run.version for run in seen]
    assert versions == sorted(set(versions))
    assert seen[-1].is_success
    assert seen[-1].output == {"processed": 3}
    assert (
        seen[-1].payload["items"] == ["a", "b", "c"]
        if isinstance(seen[-1].payload, dict)
        else seen[-1].payload.items == ["a", "b", "c"]
    )
    progress = [run.metadata["progress"]["current"] for run in seen if "progress" in run.metadata]
    assert progress == sorted(progress)
    assert seen[-1].metadata["status"] == "completed"


def test_tags_and_batches_are_followed_until_the_loop_is_left(api):
    first = api.tasks.trigger("echo", 1, tags=["t"], delay="1h")
    both = api.tasks.trigger("echo", 1, tags=["t", "u"], delay="1h")
    found = []
    for run in api.runs.subscribe_to_runs_with_tag("t"):
        found.append((run.id, run.status))
        if len(found) == 2:
            api.runs.cancel(first)
        if len(found) == 3:
            break
    assert found == [(first.id, "DELAYED"), (both.id, "DELAYED"), (first.id, "CANCELED")]
    with api.runs.subscribe_to_runs_with_tag(["t", "u"]) as subscription:
        assert next(iter(subscription)).id == both.id
    made = api.tasks.batch_trigger("echo", [1, 2], delay="1h")
    with api.runs.subscribe_to_batch(made) as subscription:
        runs = iter(subscription)
        assert [next(runs).id, next(runs).id] == list(made.run_ids)


async def test_the_twins_and_async_loops_do_the_same(async_api):
    handle = await async_api.tasks.atrigger("multi-stream", {"count": 3, "delayMs": 100})
    items = [item async for item in async_api.runs.subscribe_to_run(handle).with_streams()]
    chunks = {}
    for item in items:
        if isinstance(item, StreamChunk):
            assert item.index == len(chunks.setdefault(item.stream, []))
            chunks[item.stream].append(item.chunk)
    assert chunks == {
        "ai-output": ["token-0", "token-1", "token-2"],
        "progress": [{"step": step, "total": 3} for step in (1, 2, 3)],
        "default": ["default-0", "default-1", "default-2"],
    }
    updates = [item.run for item in items if isinstance(item, RunUpdate)]
    assert updates[-1].is_success
    only = [item async for item in async_api.runs.subscribe_to_run(handle).with_streams("progress")]
    assert {item.stream for item in only if isinstance(item, StreamChunk)} == {"progress"}
    assert (await async_api.runs.aretrieve(handle)).is_success
    assert (await async_api.batch.aretrieve((await async_api.batch.atrigger([{"task": "echo"}])).id)).run_count == 1
    assert [run.id async for run in await async_api.runs.alist(task="multi-stream")] == [handle.id]
    with pytest.raises(SynchronousOnlyOperation):
        async_api.runs.retrieve(handle)
    with pytest.raises(SynchronousOnlyOperation):
        iter(async_api.runs.subscribe_to_run(handle))


def test_with_streams_goes_on_with_a_stream_that_an_earlier_attempt_closed(api):
    handle = api.tasks.trigger("t-live-closed-once")
    items = list(api.runs.subscribe_to_run(handle).with_streams())
    chunks = [(item.stream, item.index, item.chunk) for item in items if isinstance(item, StreamChunk)]
    assert chunks == [("attempts", 0, 1), ("attempts", 1, 2)]
    assert [item.run.version for item in items if isinstance(item, RunUpdate)][-1] == api.runs.retrieve(handle).version


def test_streams_are_read_from_any_index_to_their_end(api):
    handle = api.tasks.trigger("stream-text", {"text": "the quick brown fox", "delayMs": 50})
    reader = api.streams.read(handle, "ai-output")
    assert list(reader) == ["the", "quick", "brown", "fox"]
    assert (reader.end_reason, reader.next_index) == ("completed", 4)
    assert list(api.streams.read(handle.id, "ai-output", start_index=2)) == ["brown", "fox"]
    assert list(api.streams.read(handle, "ai-output", start="latest")) == []
    assert list(api.streams.read(handle, "nothing")) == []
    records = list(api.streams.read(handle, "ai-output", start_index=3).records())
    assert [(record.index, record.chunk) for record in records] == [(3, "fox")]
    assert abs(datetime.now(UTC) - records[0].at) < timedelta(minutes=1)


def test_a_reader_times_out_or_is_aborted(api):
    handle = api.tasks.trigger("echo", 1, delay="1h")
    with pytest.raises(StreamTimeout) as caught:
        list(api.streams.read(handle, timeout_in_seconds=0.5))
    assert caught.value.index == 0
    with pytest.raises(InvalidOption):
        api.streams.read(handle, timeout_in_seconds=0)
    signal = threading.Event()
    timer = threading.Timer(0.5, signal.set)
    timer.start()
    with pytest.raises(StreamAborted):
        list(api.streams.read(handle, signal=signal))
    timer = threading.Timer(0.5, signal.set)
    assert list(api.runs.subscribe_to_run(handle, signal=signal)) == []


async def test_signals_and_close_end_async_loops(async_api):
    handle = await async_api.tasks.atrigger("echo", 1, delay="1h")
    signal = asyncio.Event()
    asyncio.get_running_loop().call_later(0.5, signal.set)
    assert [run.id async for run in async_api.runs.subscribe_to_run(handle, signal=signal)] == [handle.id]
    subscription = async_api.runs.subscribe_to_run(handle)
    asyncio.get_running_loop().call_later(0.5, subscription.close)
    assert [run.id async for run in subscription] == [handle.id]


def test_streams_are_written_from_outside(api):
    handle = api.tasks.trigger("echo", 1, delay="1h")
    for chunk in ({"a": [1, None]}, "text", 5, None):
        api.streams.append("log", chunk, target=handle.id)
    piped = api.streams.pipe("log", (number for number in range(1000)), target=handle.id)
    if piped is not None:
        piped.wait_until_complete()
    api.runs.cancel(handle)
    assert list(api.streams.read(handle, "log")) == [{"a": [1, None]}, "text", 5, None, *range(1000)]
    with pytest.raises(StreamClosed) as closed:
        api.streams.append("log", 1, target=handle.id)
    assert (closed.value.run_id, closed.value.key) == (handle.id, "log")
    assert "CANCELED" in closed.value.reason


def test_what_cannot_be_a_chunk_is_refused_and_what_came_before_it_is_stored(api):
    handle = api.tasks.trigger("echo", 1, delay="1h")

    def source():
        yield from ("\u2028", "\ud800", "x" * 300_000, "y" * 300_000, "z" * 300_000, "\0")
        raise ValueError("dry")

    def send():
        piped = api.streams.pipe("log", source(), target=handle.id)
        if piped is not None:
            piped.wait_until_complete()

    with pytest.raises(ValueError, match="dry"):
        send()
    for chunk in (float("nan"), object(), "x" * 600_000):
        with pytest.raises(InvalidInput):
            api.streams.append("more", chunk, target=handle.id)
    for _ in range(2):
        api.streams.append("more", "once", target=handle.id, producer="p", sequence=0)
    with pytest.raises(InvalidOption):
        api.streams.append("more", 1, target=handle.id, producer="p")
    with pytest.raises(RunNotFound):
        api.streams.append("more", 1, target="run_nothing")
    api.runs.cancel(handle)
    assert list(api.streams.read(handle, "log")) == [
        "\u2028", "\ud800", *(letter * 300_000 for letter in "xyz"), "\0",
    ]  # fmt: skip
    assert list(api.streams.read(handle, "more")) == ["once"]


def test_inputs_and_wait_tokens_are_answered(api):
    handle = api.tasks.trigger("wait-approval", {"mode": "input", "timeoutSeconds": 20})
    api.streams.input("approval").send(handle.id, {"approved": True})
    assert api.runs.poll(handle, interval=0.05, timeout=20).output == {"approval": {"approved": True}}
    with pytest.raises(StreamClosed):
        api.streams.input("approval").send(handle.id, 1)
    token = api.wait.create_token(timeout="1h", tags=["doc:1"], idempotency_key="k")
    assert (token.is_waiting, token.tags, token.is_cached) == (True, ("doc:1",), False)
    assert api.wait.create_token(idempotency_key="k").is_cached
    handle = api.tasks.trigger("wait-approval", {"mode": "token", "tokenId": token.id, "timeoutSeconds": 20})
    assert api.wait.complete_token(token, {"ok": 1}).output == {"ok": 1}
    assert api.runs.poll(handle, interval=0.05, timeout=20).output == {"approval": {"ok": 1}}
    assert api.wait.retrieve_token(token.id).is_completed
    assert [one.id for one in api.wait.list_tokens(status="COMPLETED", tags="doc:1")] == [token.id]
    with pytest.raises(WaitTokenNotFound):
        api.wait.complete_token("waitpoint_nothing")
