"""What a subscription of the WebSocket sends: live-protocol 1. (Opening, closing, limits: test_socket_closing.)"""

import asyncio
import itertools

import pytest
from asgiref.sync import sync_to_async

from realtime_runs import batch, runs, streams
from realtime_runs.live.hub import hub
from realtime_runs.models import Run, StreamChunk
from realtime_runs.models import Stream as StreamRow
from tests import tasks as t
from tests.wire.api import get
from tests.wire.socket_client import Socket

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _nobody_executes(settings):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "BACKEND": "tests.in_process.IdleBackend"}


@sync_to_async
def new_run(payload=None, **options):
    return t.echo.trigger(payload, **options).id


@sync_to_async
def new_runs(count, **options):
    return [t.echo.trigger(number, **options).id for number in range(count)]


cancel = sync_to_async(runs.cancel)
add_tags = sync_to_async(runs.add_tags)


async def test_a_run_comes_whole_then_what_has_changed_and_its_end():
    run_id = await new_run({"n": 1}, metadata={"step": 0}, tags=["a"])
    async with Socket() as socket:
        assert socket.subprotocol == "realtime-runs.v1"
        assert socket.ready == {"type": "ready", "ping": 25, "limits": {"subscriptions": 100, "frame": 65536}}
        id = await socket.subscribe({"run": run_id})
        first = await socket.frame()
        assert {**first, "runs": []} == {"type": "runs", "id": id, "at": 1, "runs": [], "live": True}
        (run,) = first["runs"]
        assert (run["run"], run["from"], run["v"]) == (run_id, 0, 1)
        assert run["set"]["payload"] == {"n": 1}
        await add_tags(run_id, "b")
        second = await socket.frame()
        (run,) = second["runs"]
        assert (second["at"], run["from"], run["v"]) == (2, 1, 2)
        assert run["set"].keys() == {"tags", "updatedAt", "v"}
        await cancel(run_id)
        third = await socket.frame()
        assert third["runs"][0]["set"]["status"] == "CANCELED"
        assert await socket.frame() == {"type": "end", "id": id, "at": third["at"], "reason": "completed"}


async def test_a_reader_of_a_run_goes_on_where_it_was_at_every_point_of_its_life():
    run_id = await new_run({"n": 1})
    held, since = {}, None
    for change in (add_tags, add_tags, cancel, None, None):
        async with Socket() as socket:
            id = await socket.subscribe({"run": run_id}, **({} if since is None else {"since": since}))
            while (frame := await socket.frame())["type"] == "runs":
                assert (frame["live"], "reset" in frame) == (True, False)
                assert [run["from"] for run in frame["runs"]] == ([] if since == frame["at"] else [since or 0])
                for run in frame["runs"]:
                    assert "payload" not in run["set"] or run["from"] == 0
                    held |= run["set"]
                since = frame["at"]
                if change is not None:
                    break
            else:
                assert frame == {"type": "end", "id": id, "at": since, "reason": "completed"}
        if change is not None:
            await change(run_id, "x") if change is add_tags else await change(run_id)
    whole = (await sync_to_async(get)(f"/api/v3/runs/{run_id}")).json()
    assert held == {name: value for name, value in whole.items() if name != "relatedRuns"}
    assert (held["status"], held["v"], since) == ("CANCELED", since, since)


@pytest.mark.parametrize("since", [99, -1, "nonsense", 10**30])
async def test_of_a_position_that_no_run_has_had_the_reader_is_told(since):
    run_id = await new_run("whole")
    async with Socket() as socket:
        await socket.subscribe({"run": run_id}, since=since)
        frame = await socket.frame()
        assert (frame["reset"], frame["at"], frame["runs"][0]["from"]) == (True, 1, 0)
        await add_tags(run_id, "b")
        assert "reset" not in await socket.frame()


@pytest.mark.parametrize("how", ["tag", "tags", "batch"])
async def test_a_feed_gives_its_runs_then_news_and_goes_on_where_it_was(how):
    if how == "batch":
        handle = await sync_to_async(batch.trigger)([{"task": t.echo, "payload": n} for n in (1, 2)])
        ids, to = handle.run_ids, {"batch": handle.id}
    else:
        ids = await new_runs(2, tags=["a", "b"])
        await new_run(tags=["b"])
        to = {"tag": "a" if how == "tag" else ["a", "b"]}
    async with Socket() as socket:
        id = await socket.subscribe(to)
        first = await socket.frame()
        assert (first["type"], first["id"], first["live"]) == ("runs", id, True)
        assert sorted(run["run"] for run in first["runs"]) == sorted(ids)
        assert isinstance(first["at"], str)
        await add_tags(ids[0], "c")
        second = await socket.frame()
        assert [(run["run"], run["from"], run["v"]) for run in second["runs"]] == [(ids[0], 1, 2)]
    await add_tags(ids[1], "c")
    async with Socket() as socket:
        await socket.subscribe(to, since=second["at"])
        third = await socket.frame()
        assert [(run["run"], run["v"]) for run in third["runs"]] == [(ids[1], 2)]
        await socket.subscribe(to, since="nonsense")
        again = await socket.frame()
        assert again["reset"] is True
        assert sorted(run["run"] for run in again["runs"]) == sorted(ids)


async def test_a_long_first_list_comes_in_frames_the_last_of_which_is_live():
    ids = await new_runs(250, tags=["many"])
    async with Socket() as socket:
        await socket.subscribe({"tag": "many"})
        frames = [await socket.frame() for _ in range(3)]
    assert [len(frame["runs"]) for frame in frames] == [100, 100, 50]
    assert [frame["live"] for frame in frames] == [False, False, True]
    assert [run["run"] for frame in frames for run in frame["runs"]] == sorted(ids)
    async with Socket() as socket:  # cut off amid the list
        await socket.subscribe({"tag": "many"}, since=frames[1]["at"])
        assert {run["run"] for _ in range(3) for run in (await socket.frame())["runs"]} == set(ids)


async def test_a_frame_stays_under_its_size_whatever_the_runs_hold():
    ids = [await new_run("x" * 60_000, tags=["large"], metadata={"text": "m" * 100_000}) for _ in range(4)]
    async with Socket() as socket:
        await socket.subscribe({"tag": "large"})
        frames = [await socket.frame()]  # which looks at its size
        while not frames[-1]["live"]:
            frames.append(await socket.frame())
    assert [run["run"] for frame in frames for run in frame["runs"]] == ids
    assert len(frames) == 4


@pytest.mark.parametrize("size", [70_000, 300_000])
async def test_what_is_too_large_comes_as_a_url(settings, size):
    settings.REALTIME_RUNS = {
        **settings.REALTIME_RUNS,
        "BACKEND": "realtime_runs.engine.backends.immediate.ImmediateBackend",
    }
    large = "x" * size
    run_id = await new_run(large)
    async with Socket(headers={"host": "testserver"}) as socket:
        await socket.subscribe({"run": run_id})
        (run,) = (await socket.frame())["runs"]
    assert not run["set"].keys() & {"payload", "output"}
    for name in ("payloadPresignedUrl", "outputPresignedUrl"):
        url = run["set"][name]
        assert url.startswith("http://testserver/")
        answer = await sync_to_async(get)(url.removeprefix("http://testserver"), auth="")
        assert answer.json() == large


async def test_a_run_that_is_removed_is_gone(live):
    live(BACKSTOP_SECONDS=0.1)
    run_id = await new_run()
    async with Socket() as socket:
        id = await socket.subscribe({"run": run_id})
        await socket.frame()
        await sync_to_async(Run.objects.filter(pk=run_id).delete)()
        assert await socket.frame() == {"type": "end", "id": id, "reason": "gone"}


# -- streams


@pytest.fixture
def ai():
    return streams.define("ai", str)


async def test_the_chunks_of_a_stream_come_and_its_end(ai):
    run_id = await new_run()
    async with Socket() as socket:
        id = await socket.subscribe({"stream": {"run": run_id, "key": "ai"}})
        assert await socket.frame() == {"type": "chunks", "id": id, "at": 0, "chunks": [], "live": True}
        for index, text in enumerate(["one", "", "drei ß 🙂"]):
            await ai.aappend(text, target=run_id)
            frame = {"type": "chunks", "id": id, "at": index + 1, "chunks": [text], "live": True}
            assert await socket.frame() == frame
        await ai.aclose(target=run_id)
        assert await socket.frame() == {"type": "end", "id": id, "at": 3, "reason": "closed"}


async def test_a_stream_ends_with_its_run_and_without_a_key_it_is_the_default_one():
    run_id = await new_run()
    await streams.aappend("default", {"n": 1}, target=run_id)
    async with Socket() as socket:
        id = await socket.subscribe({"stream": {"run": run_id}})
        assert (await socket.frame())["chunks"] == [{"n": 1}]
        await cancel(run_id)
        assert await socket.frame() == {"type": "end", "id": id, "at": 1, "reason": "completed"}


async def test_a_reader_of_a_stream_goes_on_at_every_index(ai):
    run_id = await new_run()
    for number in range(4):
        await ai.aappend(str(number), target=run_id)
    await ai.aclose(target=run_id)
    async with Socket() as socket:
        for since in range(6):
            id = await socket.subscribe({"stream": {"run": run_id, "key": "ai"}}, since=since)
            got = []
            while (frame := await socket.frame())["type"] == "chunks":
                assert frame["at"] - len(frame["chunks"]) == since + len(got)
                got += frame["chunks"]
            assert got == ["0", "1", "2", "3"][since:]
            assert frame == {"type": "end", "id": id, "at": max(since, 4), "reason": "closed"}


async def test_chunks_that_are_not_kept_any_more_are_gone_and_the_end_says_where_to_go_on(ai):
    run_id = await new_run()
    for number in range(4):
        await ai.aappend(str(number), target=run_id)
    await sync_to_async(StreamChunk.objects.filter(index__lt=2).delete)()
    await sync_to_async(StreamRow.objects.update)(first_index=2)
    async with Socket() as socket:
        id = await socket.subscribe({"stream": {"run": run_id, "key": "ai"}})
        assert await socket.frame() == {"type": "end", "id": id, "at": 2, "reason": "gone"}
        await socket.subscribe({"stream": {"run": run_id, "key": "ai"}}, since=2)
        assert (await socket.frame())["chunks"] == ["2", "3"]


@sync_to_async
def large_stream(chunks, size):
    run_id = t.echo.trigger(None).id
    stream = streams.define("ai", str)
    with stream.writer(target=run_id) as writer:
        for number in range(chunks):
            writer.write(f"{number:06}" + "x" * size)
    stream.close(target=run_id)
    return run_id


async def test_chunks_are_paged_by_their_size(ai):
    run_id = await large_stream(40, 50_000)
    async with Socket() as socket:
        await socket.subscribe({"stream": {"run": run_id, "key": "ai"}})
        frames = []
        while (frame := await socket.frame())["type"] == "chunks":  # which looks at its size
            frames.append(frame)
    assert [int(chunk[:6]) for frame in frames for chunk in frame["chunks"]] == [*range(40)]
    assert [frame["live"] for frame in frames] == [False] * (len(frames) - 1) + [True]
    assert len(frames) == 20
    assert socket.pings > 4


async def test_a_chunk_that_no_frame_can_hold_ends_its_subscription_with_an_error(settings):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "MAX_CHUNK_BYTES": 2_000_000}
    run_id = await large_stream(2, 1_000_000)
    async with Socket() as socket:
        id = await socket.subscribe({"stream": {"run": run_id, "key": "ai"}})
        frame = await socket.frame()
        assert (frame["type"], frame["id"], frame["code"], frame["retry"]) == ("error", id, "too_large", False)
        await socket.subscribe({"run": run_id})
        assert (await socket.frame())["type"] == "runs"


async def test_with_a_window_no_more_chunks_are_sent_than_were_acknowledged(ai):
    run_id = await large_stream(7, 10)
    async with Socket() as socket:
        id = await socket.subscribe({"stream": {"run": run_id, "key": "ai"}}, window=3)
        sizes = []
        while (frame := await socket.frame())["type"] == "chunks":
            sizes.append(len(frame["chunks"]))
            if len(sizes) < 3:
                assert await socket.is_quiet(0.05)
            await socket.send(type="ack", id=id, at=frame["at"])
    assert sizes == [3, 3, 1]


async def test_who_answers_no_ping_is_sent_a_megabyte_and_no_more(ai):
    run_id, other = await large_stream(60, 50_000), await new_run()
    async with Socket(answers_pings=False) as socket:
        await socket.subscribe({"run": other})
        await socket.frame()
        await socket.subscribe({"stream": {"run": run_id, "key": "ai"}})
        got = [await socket.frame() for _ in range(10)]
        while not await socket.is_quiet(0.3):
            got.append(await socket.frame())
        assert 1 << 20 <= sum(len(chunk) for frame in got for chunk in frame["chunks"]) < 5 << 18
        for tag in "abc":
            await add_tags(other, tag)
        assert await socket.is_quiet(0.1)  # state waits, too
        for _ in range(socket.pings):
            await socket.send(type="pong")
        seen, ends = [], 0
        while not ends or seen[-1:] != [4]:
            frame = await socket.frame()
            ends += frame["type"] == "end"
            if frame["type"] == "runs":
                seen.append(frame["at"])
            for _ in range(socket.pings):
                await socket.send(type="pong")
            socket.pings = 0
        assert len(seen) < 3  # of what changed meanwhile only the last


# -- many on one socket


async def test_an_unsubscribed_id_ends_and_leaves_nothing_behind():
    run_id = await new_run()
    async with Socket() as socket:
        id = await socket.subscribe({"run": run_id})
        await socket.frame()
        await socket.send(type="unsubscribe", id=id)
        assert await socket.frame() == {"type": "end", "id": id, "reason": "unsubscribed"}
        await socket.send(type="unsubscribe", id=id)  # which may cross our end
        await add_tags(run_id, "b")
        assert await socket.is_quiet()
        assert hub.listener_count == 0


async def test_a_socket_that_is_left_leaves_nothing_behind():
    run_id = await new_run(tags=["a"])
    before = len(asyncio.all_tasks())
    async with Socket() as socket:
        for to in ({"run": run_id}, {"tag": "a"}, {"stream": {"run": run_id}}):
            await socket.subscribe(to)
            await socket.frame()
        async with asyncio.timeout(10):
            while hub.listener_count < 3:
                await asyncio.sleep(0.01)
    async with asyncio.timeout(10):
        while hub.listener_count:
            await asyncio.sleep(0.01)
    assert len(asyncio.all_tasks()) == before


async def test_a_hundred_subscriptions_and_one_more():
    ids = await new_runs(2)
    async with Socket() as socket:
        for _, run_id in zip(range(100), itertools.cycle(ids), strict=False):
            await socket.subscribe({"run": run_id})
        assert {(await socket.frame())["id"] for _ in range(100)} == {*range(1, 101)}
        id = await socket.subscribe({"run": ids[0]})
        error = await socket.frame()
        assert (error["type"], error["id"], error["code"], error["retry"]) == ("error", id, "too_many", True)
        await cancel(ids[0])
        ends = [frame for frame in [await socket.frame() for _ in range(100)] if frame["type"] == "end"]
        assert len(ends) == 50
        await socket.subscribe({"run": ids[1]})
        assert (await socket.frame())["id"] == id + 1


# -- sending


async def test_a_record_is_sent_to_the_input_of_a_run():
    run_id = await new_run()
    async with Socket() as socket:
        for id in range(1, 6):
            await socket.send(type="send", id=id, run=run_id, input="answers", data={"n": id})
        assert [await socket.frame() for _ in range(5)] == [{"type": "sent", "id": id} for id in range(1, 6)]
        chunks = await sync_to_async(list)(StreamChunk.objects.filter(stream__kind="input").order_by("index"))
        assert [bytes(chunk.data) for chunk in chunks] == [b'{"n":%d}' % id for id in range(1, 6)]
        await cancel(run_id)
        await socket.send(type="send", id=6, run=run_id, input="answers", data=1)
        error = await socket.frame()
        assert (error["type"], error["id"], error["code"], error["retry"]) == ("error", 6, "closed", False)
        for id, fields in enumerate([{"run": "run_nothing"}, {"run": "self"}, {"input": ""}, {"input": "x" * 300}], 7):
            await socket.send(**{"type": "send", "id": id, "run": run_id, "input": "a", "data": 1, **fields})
            error = await socket.frame()
            assert (error["id"], error["code"]) == (id, "not_found" if "run" in fields else "invalid")


@pytest.mark.parametrize(
    ("to", "code"),
    [
        ({"run": "run_nothing"}, "not_found"),
        ({"run": "a\0b"}, None),
        ({"batch": "batch_nothing"}, "not_found"),
        ({"stream": {"run": "run_nothing"}}, "not_found"),
        ({"stream": {"run": "RUN", "key": ""}}, "invalid"),
        ({"stream": {"run": "RUN", "key": "k" * 300}}, "invalid"),
        ({"tag": ""}, "invalid"),
        ({"tag": ["a", " "]}, "invalid"),
        ({"tag": "t" * 200}, "too_large"),
        ({"tag": [str(number) for number in range(20)]}, "too_large"),
    ],
)
async def test_what_cannot_be_followed_ends_its_id_alone(to, code):
    run_id = await new_run(tags=["a"])
    if "stream" in to:
        to = {"stream": {**to["stream"], "run": to["stream"]["run"].replace("RUN", run_id)}}
    async with Socket() as socket:
        id = await socket.subscribe(to)
        if code is None:
            assert await socket.closed() == 4400
            return
        error = await socket.frame()
        assert (error["type"], error["id"], error["code"], error["retry"]) == ("error", id, code, False)
        await socket.subscribe({"tag": "a"})
        assert (await socket.frame())["type"] == "runs"
