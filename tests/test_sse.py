"""A stream as the answer of a plain Django view."""

import asyncio
import json
import re
import socket

import httpx
import pytest
from django.test import AsyncClient, Client

from realtime_runs import runs, sse, streams
from tests import tasks as t
from tests.conftest import SERVERS, eventually

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("nobody_executes")]


@pytest.fixture
def run_id() -> str:
    return t.echo.trigger(1, delay="1h").id


def events(body: bytes) -> list[tuple[str, str]]:
    """(event or id, data) of each event, as the rules of the standard give them."""
    found = []
    for block in body.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
        if fields:
            found.append((fields.get("event") or fields.get("id"), fields["data"]))
    return found


def fetch(run_id, key="log", view="stream", **headers):
    async def read():
        response = await AsyncClient().get(f"/tests/{view}/{run_id}/{key}", headers=headers)
        assert response["Content-Type"].startswith("text/event-stream")
        assert "no-cache" in response["Cache-Control"]
        assert response["X-Accel-Buffering"] == "no"
        return b"".join([part async for part in response])

    return events(asyncio.run(read()))


HOSTILE = ["plain", "cr\rlf\nboth\r\n\r\ndata: x", "\ufeffbom", "\u2028\u2029", "nul\0", '"quotes"', "🚲", ""]


def test_every_chunk_is_one_event_whatever_it_holds(run_id):
    for text in HOSTILE:
        streams.append("log", text, target=run_id)
    runs.cancel(run_id)
    *chunks, end = fetch(run_id)
    assert [(id, json.loads(data)) for id, data in chunks] == [(str(n), text) for n, text in enumerate(HOSTILE)]
    assert end == ("end", '{"reason": "canceled"}')


@pytest.mark.parametrize("view", ["stream", "sync-stream"])
def test_a_client_that_was_cut_off_goes_on_behind_what_it_had(run_id, view):
    for number in range(5):
        streams.append("log", number, target=run_id)
    runs.cancel(run_id)
    if view == "stream":
        found = fetch(run_id, view=view, last_event_id="2")
    else:
        response = Client().get(f"/tests/{view}/{run_id}/log", headers={"last-event-id": "2"})
        found = events(b"".join(response))
    assert found == [("3", "3"), ("4", "4"), ("end", '{"reason": "canceled"}')]


@pytest.mark.parametrize("given", ["", "-1", "a", "1,2", "1.0", "9" * 10_000, "²", "nan"])
def test_what_is_no_index_of_ours_is_ignored(run_id, given):
    streams.append("log", 0, target=run_id)
    runs.cancel(run_id)
    assert fetch(run_id, last_event_id=given)[0] == ("0", "0")


def test_an_unknown_run_is_an_error_event():
    ((name, data),) = fetch("run_missing")
    assert (name, "run_missing" in data) == ("error", True)


def test_a_synchronous_server_answers_for_a_while_and_ends_with_a_cursor(run_id, monkeypatch):
    monkeypatch.setattr(sse, "WSGI_SECONDS", 0.5)
    monkeypatch.setattr(sse, "PING_SECONDS", 0.1)
    streams.append("log", 0, target=run_id)
    body = b"".join(Client().get(f"/tests/sync-stream/{run_id}/log"))
    assert b": ping" in body
    assert events(body) == [("0", "0"), ("cursor", '{"index": 1}')]
    streams.append("log", 1, target=run_id)
    runs.cancel(run_id)
    body = b"".join(Client().get(f"/tests/sync-stream/{run_id}/log", headers={"last-event-id": "0"}))
    assert events(body) == [("1", "1"), ("end", '{"reason": "canceled"}')]


def test_silence_keeps_the_connection_alive_until_the_time_out(run_id, monkeypatch):
    monkeypatch.setattr(sse, "PING_SECONDS", 0.05)

    async def read():
        response = streams.read(run_id, "log", timeout_in_seconds=0.5).as_response()
        return b"".join([part async for part in response])

    body = asyncio.run(read())
    assert body.count(b": ping") >= 3
    assert events(body) == [("cursor", '{"index": 0}')]


@pytest.mark.parametrize("kind", SERVERS)
def test_chunks_arrive_as_they_are_written_and_a_client_that_leaves_is_forgotten(asgi_server, run_id, kind):
    server = asgi_server(kind, BACKSTOP_SECONDS=0.1)
    url = f"{server.url}/tests/stream/{run_id}/log"
    with httpx.stream("GET", url, timeout=20) as response:
        lines = response.iter_lines()
        for number in range(3):
            streams.append("log", number, target=run_id)
            assert next(line for line in lines if line.startswith("data")) == f"data: {number}"
    with httpx.Client(base_url=server.url, timeout=20) as client:
        # Some leave without a word.
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", server.port)) as connection:
                connection.sendall(f"GET /tests/stream/{run_id}/log HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                assert re.match(rb"HTTP/1.1 200", connection.recv(1000))
        eventually(lambda: client.get("/tests/listeners").json()["count"] <= 1)  # 1: the worker's own
    assert runs.retrieve(run_id).status == "DELAYED"
