"""Reading streams over HTTP: wire-protocol 8.3."""

import asyncio
import json
import re
import socket
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from asgiref.sync import sync_to_async

from realtime_runs import runs, streams
from realtime_runs.access import tokens
from realtime_runs.database import readers
from realtime_runs.engine.appending import Append, append_all
from realtime_runs.engine.context import Lease
from realtime_runs.live.hub import hub
from realtime_runs.models import Run, Stream, StreamChunk, StreamName, database_now
from realtime_runs.wire import stream_records
from realtime_runs.wire.realtime.base import threads
from tests import tasks as t
from tests.conftest import SERVERS, eventually
from tests.wire.exchange import ask, key_header
from tests.wire.stream_events import StreamSource, chunks, read, records

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _nobody_executes(settings):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "BACKEND": "tests.in_process.IdleBackend"}


@pytest.fixture
def run_id():
    return t.echo.trigger(1, tags=["user:1"]).id


@pytest.fixture
def url(run_id):
    return f"/realtime/v1/streams/{run_id}/log"


def bearer(*scopes, life=timedelta(minutes=1)):
    return {"authorization": f"Bearer {tokens.sign(scopes, life=life)}"}


@sync_to_async
def append(run_id, *values, key="log", **more):
    """In one transaction."""
    append_all([Append(StreamName(run_id, "output", key), [json.dumps(one).encode() for one in values], **more)])


@sync_to_async
def end(run_id):
    runs.cancel(run_id)


# -- what is sent -----------------------------------------------------------------------------------------------------


async def test_records_come_as_the_contract_shows_them(run_id, url):
    before = datetime.now(UTC)
    await append(run_id, "hello", "big", "world")
    async with StreamSource(url, last_event_id="0", timeout_seconds="1") as source:
        await source.open()
        event = await source.piece()
    assert event.startswith(b"event: batch\ndata: {")
    assert event.endswith(b"}\n\n")
    assert event.count(b"\n") == 3
    first, second = records(event)
    assert first.keys() == {"seq_num", "timestamp", "headers", "body"}
    assert (first["seq_num"], second["seq_num"]) == (1, 2)
    assert first["headers"] == []
    assert abs(first["timestamp"] - before.timestamp() * 1000) < 60_000
    bodies = [json.loads(one["body"]) for one in (first, second)]
    assert [body["data"] for body in bodies] == ["big", "world"]
    assert all(isinstance(body["id"], str) for body in bodies)
    assert bodies[0]["id"] != bodies[1]["id"]


async def test_what_is_stored_comes_and_then_each_chunk_when_it_is(run_id, url):
    await append(run_id, 0)
    async with StreamSource(url) as source:
        await source.open()
        assert await source.chunks(1) == [(0, 0)]
        for number in range(1, 4):
            await append(run_id, number)
            assert await source.chunks(1) == [(number, number)]
        await end(run_id)
        assert await source.last_chunks() == []


async def test_chunks_that_wait_together_are_one_event(run_id, url):
    async with StreamSource(url) as source:
        await source.open()
        await append(run_id, *range(50))
        assert chunks(records(await source.piece())) == [(number, number) for number in range(50)]


async def test_chunks_that_are_large_come_in_several_events(run_id, url):
    texts = [letter * 90_000 for letter in "abcd"]
    await append(run_id, *texts)
    await end(run_id)
    async with StreamSource(url) as source:
        await source.open()
        sizes = []
        while piece := await source.piece():
            sizes.append(len(piece))
        assert len(sizes) == 5  # the last one says that it is the end
    assert await read(url) == list(enumerate(texts))


HOSTILE = ["cr\rlf\nboth\r\n\r\ndata: x", "\ufeffbom", "\u2028\u2029", "nul\0", '"\\quotes', "🚲", "", "\ud800"]
VALUES = [None, True, 1.5, 2**70, {"a": [1, {"b": None}]}, [], "text"]


async def test_every_value_comes_as_it_was_stored(run_id, url):
    for value in [*HOSTILE, *VALUES]:
        await streams.aappend("log", value, target=run_id)
    await end(run_id)
    assert [data for _, data in await read(url)] == [*HOSTILE, *VALUES]


async def test_of_a_stream_that_began_anew_only_the_new_attempt_follows(run_id, url):
    def attempt(number):
        now = database_now()
        Run.objects.filter(pk=run_id).update(
            status="EXECUTING", attempt=number, lease_token="t", lease_until=now + timedelta(hours=1)
        )

    await sync_to_async(attempt)(1)
    await append(run_id, "a", "b", lease=Lease(run_id, 1, "t"), on_retry="restart")
    async with StreamSource(url) as source:
        await source.open()
        assert await source.chunks(2) == [(0, "a"), (1, "b")]
        await sync_to_async(attempt)(2)
        await append(run_id, "c", lease=Lease(run_id, 2, "t"), on_retry="restart")
        assert await source.chunks(1) == [(2, "c")]
        assert await read(url, timeout_seconds="1") == [(2, "c")]


async def test_all_readers_of_a_chunk_get_what_was_encoded_once(run_id, url):
    name = StreamName(run_id, "output", "log")
    await append(run_id, "a")
    await end(run_id)
    assert await read(url) == await read(url) == [(0, "a")]
    assert (name, 0, 0) in stream_records._encoded._values


# -- where it begins --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("last", "first"), [("0", 1), ("1795378415913-1", 2), ("0-0", 1), ("000", 1), ("", 0), ("3", 4), ("999999999", 4)]
)
async def test_it_goes_on_behind_the_last_id_whatever_form_it_has(run_id, url, last, first):
    await append(run_id, 0, 1, 2, 3)
    await end(run_id)
    assert await read(url, last_event_id=last) == [(number, number) for number in range(first, 4)]


BAD_IDS = ["-1", "a", "1,2", "1.0", "1-", "-", "9" * 19, "9" * 10_000, "²", "nan", "1-2-3", "0x1", "1 2", "1\x00"]


@pytest.mark.parametrize("last", BAD_IDS)
async def test_an_id_that_is_no_position_is_refused(url, last):
    answer = await ask("GET", url, {**key_header(), "last-event-id": last})
    assert answer.status == 400
    assert answer.data["error"].startswith("Query Error")
    assert answer.data["details"][0]["path"] == ["Last-Event-ID"]


async def test_latest_begins_with_what_comes_next(run_id, url):
    await append(run_id, "old")
    async with StreamSource(url, x_trigger_stream_start="latest") as source:
        await source.open()
        await append(run_id, "new")
        assert await source.chunks(1) == [(1, "new")]


async def test_the_last_id_wins_over_latest(run_id, url):
    await append(run_id, 0, 1)
    await end(run_id)
    assert await read(url, x_trigger_stream_start="latest", last_event_id="0") == [(1, 1)]


async def test_chunks_that_were_removed_are_an_error_and_not_a_silent_gap(run_id, url):
    await append(run_id, 0, 1)

    def remove():
        StreamChunk.objects.filter(stream__run=run_id, index=0).delete()
        Stream.objects.filter(run=run_id).update(first_index=1)

    await sync_to_async(remove)()
    answer = await ask("GET", url, key_header())
    assert (answer.status, answer.data["firstIndex"]) == (410, 1)
    await end(run_id)
    assert await read(url, last_event_id="0") == [(1, 1)]


# -- how it ends ------------------------------------------------------------------------------------------------------


async def test_it_ends_without_an_event_when_nothing_came_for_the_time_out(run_id, url):
    async with StreamSource(url, timeout_seconds="2") as source:
        await source.open()
        await asyncio.sleep(1.1)
        await append(run_id, 0)
        await source.chunks(1)
        assert await source.is_quiet(1.1)  # the time began anew with the chunk
        assert await source.rest() == b""


@pytest.mark.parametrize("seconds", ["0", "601", "-1", "0.5", "x", "nan", "inf", "1e2", "600.1", "٣", "9" * 400])
async def test_a_time_out_that_is_out_of_range_is_refused(url, seconds):
    answer = await ask("GET", url, {**key_header(), "timeout-seconds": seconds})
    assert answer.status == 400
    assert answer.data["details"][0]["path"] == ["Timeout-Seconds"]


async def test_it_ends_when_the_stream_is_closed_and_everything_was_sent(run_id, url):
    async with StreamSource(url) as source:
        await source.open()
        await append(run_id, 0)
        await streams.aclose("log", target=run_id)
        assert await source.last_chunks() == [(0, 0)]


async def test_a_stream_that_nobody_wrote_waits_and_ends_with_its_run(run_id, url):
    async with StreamSource(url) as source:
        await source.open()
        assert await source.is_quiet()
        await end(run_id)
        assert await source.last_chunks() == []
    assert await read(url) == []


async def test_silence_is_filled_with_comments(settings, url):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "PING_SECONDS": 0.05}
    async with StreamSource(url) as source:
        await source.open()
        assert [await source.piece() for _ in range(3)] == [b": ping\n\n"] * 3


async def test_a_token_that_expires_ends_it_with_an_error_so_that_its_client_asks_again(run_id, url):
    token = bearer(f"read:runs:{run_id}", life=timedelta(seconds=3))
    async with StreamSource(url, token) as source:
        await source.open()
        assert await source.rest() == b'event: error\ndata: {"error":"The credential is not valid any more"}\n\n'
    assert (await ask("GET", url, token)).status == 401


async def test_a_client_that_leaves_is_forgotten_and_who_waits_holds_no_connection(run_id, url):
    async with StreamSource(url) as source:
        await source.open()
        await append(run_id, 0)
        await source.chunks(1)
        assert hub.listener_count == 1
        # Threads that have nothing to do give their connections back.
        await sync_to_async(eventually)(lambda: readers._threads == threads._threads == 0)
    await sync_to_async(eventually)(lambda: hub.listener_count == 0)


# -- who may ----------------------------------------------------------------------------------------------------------


async def test_an_unknown_run_is_not_found_before_scopes_are_looked_at():
    for headers in (key_header(), bearer("read:runs:run_other")):
        answer = await ask("GET", "/realtime/v1/streams/run_missing/log", headers)
        assert (answer.status, answer.data) == (404, {"error": "Not found"})
        assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    "scope", ["read:runs", "read:runs:{}", "read:tags:user:1", "read:tasks:{task}", "admin", "read:all"]
)
async def test_a_token_that_may_read_the_run_may_read_its_streams(run_id, url, scope):
    await end(run_id)
    assert await read(url, bearer(scope.format(run_id, task=t.echo.id))) == []


@pytest.mark.parametrize("scope", ["read:runs:run_other", "write:runs:{}", "read:tags:user:2", "write:inputStreams:{}"])
async def test_a_token_for_something_else_may_not(run_id, url, scope):
    answer = await ask("GET", url, bearer(scope.format(run_id)))
    assert answer.status == 403
    assert answer.data == {
        "error": "Unauthorized",
        "code": "unauthorized",
        "param": "access_token",
        "type": "authorization",
    }


@pytest.mark.parametrize("credential", [None, "", "Bearer x", "Bearer a.b.c", "Basic eA=="])
async def test_without_a_credential_that_is_valid_nobody_learns_anything(url, credential):
    for path in (url, "/realtime/v1/streams/run_missing/log"):
        answer = await ask("GET", path, {} if credential is None else {"authorization": credential})
        assert answer.status == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")


# -- paths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key", ["a/b", "é ü", "100%", "..", "a/../b", "'; DROP TABLE", "k" * 255, "streams", "🚲", "//"]
)
async def test_a_key_may_hold_what_it_likes(run_id, key):
    await append(run_id, "x", key=key)
    await end(run_id)
    assert await read(f"/realtime/v1/streams/{run_id}/{key}") == [(0, "x")]


@pytest.mark.parametrize(("key", "status"), [("k" * 256, 400), ("a\0b", 400), ("a\nb", 404), ("a\n", 404), ("", 404)])
async def test_a_key_that_no_stream_can_have_is_refused(run_id, key, status):
    answer = await ask("GET", f"/realtime/v1/streams/{run_id}/{key}", key_header())
    assert answer.status == status
    assert answer.data["error"]


@pytest.mark.parametrize("run", ["run_" + "x" * 5000, "a\0", "🚲", "..", " "])
async def test_a_run_that_cannot_be_is_not_found(run):
    answer = await ask("GET", f"/realtime/v1/streams/{run}/log", key_header())
    assert (answer.status, answer.data) == (404, {"error": "Not found"})


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE"])
async def test_the_path_of_a_stream_is_only_read(url, method):
    answer = await ask(method, url, key_header())
    assert (answer.status, answer.headers["allow"]) == (405, "GET")


async def test_pages_of_any_origin_may_read(url):
    asked = "authorization,last-event-id,timeout-seconds"
    headers = {
        "access-control-request-method": "GET",
        "access-control-request-headers": asked,
        "origin": "https://a.example",
    }
    answer = await ask("OPTIONS", url, headers)
    assert answer.status == 204
    assert answer.headers["access-control-allow-headers"] == asked
    refused = await ask("GET", url, {"origin": "https://a.example"})
    assert "x-stream-version" in refused.headers["access-control-expose-headers"]


# -- real servers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SERVERS)
def test_headers_come_at_once_chunks_as_they_are_written_and_who_leaves_is_gone(asgi_server, run_id, url, kind):
    server = asgi_server(kind, BACKSTOP_SECONDS=0.1, BACKEND="tests.in_process.IdleBackend")
    with httpx.stream("GET", server.url + url, headers=key_header(), timeout=20) as response:
        assert response.headers["x-stream-version"] == "v2"
        pieces = response.iter_raw()
        assert next(pieces) == b": ok\n\n"
        for number in range(3):
            streams.append("log", number, target=run_id)
            assert chunks(records(next(pieces))) == [(number, number)]
        runs.cancel(run_id)
        assert b"".join(pieces).startswith(b"event: end")  # and a clean end, or it raises
    waiting = t.echo.trigger(1).id
    request = f"GET /realtime/v1/streams/{waiting}/log HTTP/1.1\r\nHost: localhost\r\n"
    request += "".join(f"{name}: {value}\r\n" for name, value in key_header().items()) + "\r\n"
    for _ in range(10):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(request.encode())
            assert re.match(rb"HTTP/1.1 200", client.recv(1000))
    listeners = httpx.Client(base_url=server.url, timeout=20)
    with listeners:
        eventually(lambda: listeners.get("/tests/listeners").json()["count"] == 0)
