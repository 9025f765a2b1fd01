"""The WebSocket: live-protocol 1."""

import pytest
from asgiref.sync import sync_to_async

from realtime_runs import runs, streams
from tests import tasks as t
from tests.wire.socket_client import Socket

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _nobody_executes(settings):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "BACKEND": "tests.in_process.IdleBackend"}


@sync_to_async
def new_run(payload=None, **options):
    return t.echo.trigger(payload, **options).id


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
        await sync_to_async(runs.add_tags)(run_id, "b")
        second = await socket.frame()
        (run,) = second["runs"]
        assert (second["at"], run["from"], run["v"]) == (2, 1, 2)
        assert run["set"].keys() == {"tags", "updatedAt", "v"}
        await sync_to_async(runs.cancel)(run_id)
        third = await socket.frame()
        assert third["runs"][0]["set"]["status"] == "CANCELED"
        end = await socket.frame()
        assert end == {"type": "end", "id": id, "at": third["at"], "reason": "completed"}


async def test_the_chunks_of_a_stream_come_and_its_end():
    run_id = await new_run()
    stream = streams.define("ai", str)
    await stream.aappend("one", target=run_id)
    async with Socket() as socket:
        id = await socket.subscribe({"stream": {"run": run_id, "key": "ai"}})
        assert await socket.frame() == {"type": "chunks", "id": id, "at": 1, "chunks": ["one"], "live": True}
        await stream.aappend("two", target=run_id)
        assert await socket.frame() == {"type": "chunks", "id": id, "at": 2, "chunks": ["two"], "live": True}
        await stream.aclose(target=run_id)
        assert await socket.frame() == {"type": "end", "id": id, "at": 2, "reason": "closed"}
