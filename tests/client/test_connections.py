"""What happens to the client's connections: cut, refused, expired, never there."""

import asyncio
import socket
import subprocess
import sys
import threading
from contextlib import suppress

import httpx
import pytest

from realtime_runs import auth, runs, streams
from realtime_runs.access.keys import secret_keys
from realtime_runs.client import Client
from realtime_runs.client.runs import HeldRuns
from realtime_runs.exceptions import ConnectionFailed, Forbidden, InvalidToken, ServerError
from tests import tasks as t
from tests.conftest import EMBEDDED, ROOT, WebServer, eventually, with_settings
from tests.services import free_port

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(90)]


class Proxy:
    """Between a client and a server; `cut()` ends all connections without a word."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._pairs: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
                upstream = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            self._pairs += [client, upstream]
            for source, sink in ((client, upstream), (upstream, client)):
                threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            end.close()

    def cut(self) -> None:
        pairs, self._pairs = self._pairs, []
        for end in pairs:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._server.close()
        self.cut()


@pytest.fixture
def proxy(server):
    made = Proxy(server.port)
    yield made
    made.close()


class Reading(threading.Thread):
    def __init__(self, items):
        super().__init__(daemon=True)
        self.items, self.found, self.error = items, [], None
        self.start()

    def run(self):
        try:
            for item in self.items:
                self.found.append(item)
        except BaseException as error:
            self.error = error

    def ended(self):
        self.join(30)
        assert not self.is_alive(), f"it goes on after {len(self.found)} items"
        if self.error:
            raise self.error
        return self.found


def test_readers_go_on_without_loss_or_double_when_their_connections_are_cut(server, proxy):
    run_id = t.echo.trigger(1, delay="1h").id
    with Client(f"http://127.0.0.1:{proxy.port}", secret_keys()[0]) as client:
        reading = Reading(client.streams.read(run_id, "log"))
        following = Reading(client.runs.subscribe_to_run(run_id))
        for number in range(300):
            streams.append("log", number, target=run_id)
            if number % 60 == 30:
                runs.add_tags(run_id, f"tag-{number}")
                eventually(lambda number=number: len(reading.found) > number - 20)
                proxy.cut()
        runs.cancel(run_id)
        assert reading.ended() == list(range(300))
        versions = [run.version for run in following.ended()]
        assert versions == sorted(set(versions))
        assert following.found[-1].is_cancelled
        assert len(following.found[-1].tags) == 5


def test_a_server_that_is_restarted_is_found_again(free_port_server):
    server, restart = free_port_server
    run_id = t.echo.trigger(1, delay="1h").id
    with Client(server.url, secret_keys()[0]) as client:
        reading = Reading(client.streams.read(run_id, "log"))
        following = Reading(client.runs.subscribe_to_runs_with_tag("a"))
        streams.append("log", 0, target=run_id)
        eventually(lambda: reading.found == [0])
        server.process.kill9()
        streams.append("log", 1, target=run_id)
        runs.add_tags(run_id, "a")
        restart()
        streams.append("log", 2, target=run_id)
        streams.close("log", target=run_id)
        assert reading.ended() == [0, 1, 2]
        eventually(lambda: [run.tags for run in following.found] == [("a",)], timeout=20)
        following.items.close()
        assert len(following.ended()) == 1


@pytest.fixture
def free_port_server(server_env, start_process):
    """A server on a port that it is started on again."""
    port = free_port()
    env = with_settings({**server_env, "REALTIME_RUNS_BACKEND": EMBEDDED}, {"BACKSTOP_SECONDS": 0.2})

    def start():
        arguments = ["-m", "uvicorn", "--port", str(port), "--log-level", "warning", "project.asgi:application"]
        server = WebServer(start_process(arguments, env=env), port)
        eventually(server.answers, timeout=20)
        return server

    return start(), start


def test_a_token_that_expires_in_the_middle_is_replaced(server):
    run_id = t.echo.trigger(1, delay="1h").id
    given = []

    def refresh():
        given.append(auth.create_public_token([f"read:runs:{run_id}"], expires_in=2 if len(given) < 1 else "1h"))
        return given[-1]

    with Client(server.url, "no-token-at-all", refresh_access_token=refresh) as client:
        following = Reading(client.runs.subscribe_to_run(run_id))
        reading = Reading(client.streams.read(run_id, "log"))
        eventually(lambda: len(following.found) == 1)
        eventually(lambda: len(given) >= 2, timeout=20)
        runs.add_tags(run_id, "x")
        streams.append("log", 1, target=run_id)
        runs.cancel(run_id)
        assert [run.version for run in following.ended()][-1] >= 3
        assert reading.ended() == [1]
        with pytest.raises(Forbidden):
            client.runs.retrieve(t.echo.trigger(1).id)


def test_without_a_new_token_the_refusal_is_an_error(server):
    run_id = t.echo.trigger(1).id
    with Client(server.url, "tr_dev_wrong_key") as client:
        for call in (
            client.runs.retrieve,
            lambda run: list(client.runs.subscribe_to_run(run)),
            lambda run: list(client.streams.read(run)),
        ):
            with pytest.raises(InvalidToken):
                call(run_id)
    with Client(server.url, "wrong", refresh_access_token=lambda: "wrong again") as client, pytest.raises(InvalidToken):
        client.runs.retrieve(run_id)


def test_a_trigger_that_is_tried_again_makes_one_run(server, proxy, monkeypatch):
    """The answer to the first attempt is lost after the server has sent it."""
    client = Client(f"http://127.0.0.1:{proxy.port}", secret_keys()[0])
    real = httpx.AsyncClient.request
    lost = []

    async def request(self, *args, **kwargs):
        answer = await real(self, *args, **kwargs)
        if not lost:
            lost.append(answer)
            raise httpx.ReadError("cut")
        return answer

    monkeypatch.setattr(httpx.AsyncClient, "request", request)
    handle = client.tasks.trigger("echo", 1)
    assert lost[0].json()["id"] == handle.id
    assert len(list(client.runs.list())) == 1
    client.close()


def test_a_server_that_is_not_there_is_an_error_after_some_attempts(monkeypatch):
    monkeypatch.setattr("realtime_runs.client.transport._FIRST_PAUSE", 0.01)
    client = Client(f"http://127.0.0.1:{free_port()}", "key")
    for call in (client.runs.retrieve, lambda run: list(client.runs.subscribe_to_run(run))):
        with pytest.raises(ConnectionFailed, match="cannot be reached"):
            call("run_x")


def test_frames_are_applied_once_and_a_reset_forgets():
    def frame(v, from_version, **fields):
        return {"runs": [{"run": "run_1", "from": from_version, "v": v, "set": fields}], "live": True}

    whole = {
        "id": "run_1", "taskIdentifier": "t", "status": "QUEUED", "createdAt": "2026-01-01T00:00:00.000Z",
        "updatedAt": "2026-01-01T00:00:00.000Z", "tags": [], "isTest": False, "payload": None, "metadata": {"a": 1},
        "delayedUntil": "2026-01-01T00:00:00.000Z",
    }  # fmt: skip
    held = HeldRuns()
    (first,) = held.take(frame(1, 0, **whole))
    (second,) = held.take(frame(3, 1, status="EXECUTING", delayedUntil=None))
    assert (second.status, second.version, second.metadata, second.delayed_until) == ("EXECUTING", 3, {"a": 1}, None)
    assert held.take(frame(2, 1, status="QUEUED")) == held.take(frame(3, 1, status="QUEUED")) == []
    assert [run.version for run in held.take({**frame(2, 0, **whole), "reset": True})] == [2]
    assert first.payload is None


def test_the_client_can_be_imported_without_a_django_project():
    code = "from realtime_runs.client import Client; Client('http://127.0.0.1:1', 'key'); print('imported')"
    env = {"PATH": "", "PYTHONPATH": str(ROOT)}
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=env, capture_output=True, text=True, check=False
    )
    assert (found.stdout, found.stderr) == ("imported\n", "")


async def test_one_client_serves_several_threads_and_loops(server):
    async with Client(server.url, secret_keys()[0]) as client:
        made = await asyncio.gather(*(client.tasks.atrigger("echo", number) for number in range(10)))
        found = await asyncio.gather(*(asyncio.to_thread(client.runs.retrieve, handle) for handle in made))
        assert [run.id for run in found] == [handle.id for handle in made]
        await asyncio.to_thread(client.close)


def test_a_status_that_nobody_foresaw_is_an_error_that_says_it(monkeypatch, server):
    monkeypatch.setattr("realtime_runs.client.transport._FIRST_PAUSE", 0.01)
    with Client(f"{server.url}/nowhere", secret_keys()[0]) as client, pytest.raises(ServerError) as caught:
        client.runs.list()
    assert caught.value.status == 404
