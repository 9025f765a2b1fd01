"""Readers of the HTTP API that go away without a word: nothing of them is left."""

import selectors
import socket
import struct

import httpx
import pytest
from django.db import connection

from realtime_runs.access.keys import secret_keys
from tests import tasks as t
from tests.conftest import SERVERS, eventually

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(120)]

LEAVERS = 1000
AT_ONCE = 40  # Daphne keeps 50 who wait to be accepted; whoever comes then tries again after a second
RST = struct.pack("ii", 1, 0)  # SO_LINGER: close without a word


def database_connections():
    """Of others than this test; None where that cannot be known."""
    if connection.vendor != "postgresql":
        return None
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return cursor.fetchone()[0]


def open_readers(port, requests):
    """Sockets that have sent a request each, and have the beginning of the answer where it begins at once."""
    opened = []
    for start in range(0, len(requests), AT_ONCE):
        with selectors.DefaultSelector() as waiting:
            for request, answers_at_once in requests[start : start + AT_ONCE]:
                reader = socket.create_connection(("127.0.0.1", port), timeout=20)
                reader.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
                reader.sendall(request.encode())
                opened.append(reader)
                if answers_at_once:
                    waiting.register(reader, selectors.EVENT_READ)
            while waiting.get_map():
                ready = waiting.select(20)
                assert ready, "the server does not answer"
                for key, _ in ready:
                    assert key.fileobj.recv(4000).startswith(b"HTTP/1.1 200")
                    waiting.unregister(key.fileobj)
    return opened


@pytest.mark.parametrize("kind", SERVERS)
def test_a_thousand_readers_that_vanish_leave_nothing_behind(asgi_server, kind):
    server = asgi_server(kind, BACKEND="tests.in_process.IdleBackend", LONG_POLL_SECONDS=60, PING_SECONDS=60)
    authorization = f"Bearer {secret_keys()[0]}"
    run_ids = [t.echo.trigger(n, tags=["watched"]).id for n in range(10)]
    with httpx.Client(base_url=server.url, headers={"Authorization": authorization}, timeout=20) as client:

        def load():
            return client.get("/tests/load").json()

        before, connections_before = load(), database_connections()
        polls = []
        for path in [f"/realtime/v1/runs/{run_id}" for run_id in run_ids] + ["/realtime/v1/runs?tags=watched"]:
            url = path + ("&" if "?" in path else "?")
            headers = client.get(f"{url}offset=-1").headers
            polls.append(
                f"{url}offset={headers['electric-offset']}&handle={headers['electric-handle']}&live=true&cursor="
            )
        requests = []
        for number in range(LEAVERS):
            is_stream = number % 2 == 0
            path = f"/realtime/v1/runs/{run_ids[number % 10]}" if is_stream else polls[number % len(polls)]
            accept = "text/event-stream" if is_stream else "*/*"
            requests.append(
                (
                    f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: {accept}\r\nAuthorization: {authorization}\r\n\r\n",
                    is_stream,
                )
            )
        readers = open_readers(server.port, requests)
        eventually(lambda: load()["listeners"] >= before["listeners"] + LEAVERS, message="not all of them wait")
        if connections_before is not None:  # who waits holds none
            eventually(lambda: database_connections() <= connections_before + 2, message="connections are held")
        for reader in readers:
            reader.close()
        after = eventually(
            lambda: (found := load())["listeners"] == before["listeners"] and found, message="listeners are left"
        )
        eventually(lambda: load()["tasks"] <= before["tasks"], message=f"tasks are left, {after} and {before} before")
        if connections_before is not None:
            eventually(lambda: database_connections() <= connections_before + 2)
