"""What happens to the client's connections: cut, restarted, left."""

import asyncio
import gc
import socket
import threading
from contextlib import suppress

import httpx
import pytest

from realtime_runs import runs, streams
from realtime_runs.access.keys import secret_keys
from realtime_runs.client import Client, RunUpdate, StreamChunk
from realtime_runs.client.transport import loop_thread
from realtime_runs.exceptions import (
    ConnectionFailed,
    StreamTimeout,
)
from realtime_runs.models import StreamChunk as StreamChunkRow
from tests import tasks as t
from tests.client.reading import Reading
from tests.conftest import EMBEDDED, WebServer, eventually, with_settings
from tests.services import free_port

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(90)]

NOON = "2026-01-01T12:00:00.000Z"


class Proxy:
    """Between a client and a server; `cut()` ends all connections without a word."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._pairs: list[socket.socket] = []
        self.is_down = False
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
                if self.is_down:
                    client.close()
                    continue
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

    def go_down(self) -> None:
        """Whoever connects is cut off at once."""
        self.is_down = True
        self.cut()

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


def test_a_subscription_with_streams_goes_on_when_its_connections_are_cut(server, proxy):
    run_id = t.echo.trigger(1, delay="1h").id
    with Client(f"http://127.0.0.1:{proxy.port}", secret_keys()[0]) as client:
        following = Reading(client.runs.subscribe_to_run(run_id).with_streams())
        for number in range(60):
            for key in ("a", "b"):
                streams.append(key, number, target=run_id)
            if number % 20 == 10:
                eventually(lambda number=number: len(following.found) > number)
                proxy.cut()
        runs.cancel(run_id)
        items = following.ended()
    for key in ("a", "b"):
        chunks = [(one.index, one.chunk) for one in items if isinstance(one, StreamChunk) and one.stream == key]
        assert chunks == [(number, number) for number in range(60)]
    versions = [one.run.version for one in items if isinstance(one, RunUpdate)]
    assert versions == sorted(set(versions))
    assert items[-1].run.is_cancelled


def test_the_latest_chunk_is_where_the_reader_first_came_also_when_it_is_cut_off_before_another(server, proxy):
    run_id = t.echo.trigger(1, delay="1h").id
    streams.append("log", "before", target=run_id)
    with Client(f"http://127.0.0.1:{proxy.port}", secret_keys()[0]) as client:
        reader = client.streams.read(run_id, "log", start="latest")
        reading = Reading(reader)
        eventually(lambda: reader.next_index == 1)
        proxy.go_down()
        streams.append("log", "meanwhile", target=run_id)
        proxy.is_down = False
        eventually(lambda: reading.found == ["meanwhile"])
        runs.cancel(run_id)
        assert reading.ended() == ["meanwhile"]


def test_a_reader_times_out_also_while_there_is_no_connection(server, proxy):
    run_id = t.echo.trigger(1, delay="1h").id
    streams.append("log", 0, target=run_id)
    with Client(f"http://127.0.0.1:{proxy.port}", secret_keys()[0]) as client:
        reading = Reading(client.streams.read(run_id, "log", timeout_in_seconds=1))
        eventually(lambda: reading.found == [0])
        proxy.go_down()
        with pytest.raises(StreamTimeout) as caught:
            reading.ended()
        assert caught.value.index == 1


def test_a_server_that_is_restarted_is_found_again(free_port_server):
    server, restart = free_port_server
    run_id = t.echo.trigger(1, delay="1h").id
    with Client(server.url, secret_keys()[0]) as client:
        reading = Reading(client.streams.read(run_id, "log"))
        following = Reading(client.runs.subscribe_to_runs_with_tag("a"))
        to_its_end = Reading(client.runs.subscribe_to_run(run_id))
        streams.append("log", 0, target=run_id)
        eventually(lambda: to_its_end.found)
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
        runs.cancel(run_id)
        versions = [run.version for run in to_its_end.ended()]
        assert versions == sorted(set(versions))
        assert to_its_end.found[-1].is_cancelled


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


def test_an_input_is_not_sent_twice(server, monkeypatch):
    run_id = t.echo.trigger(1, delay="1h").id
    real = httpx.AsyncClient.request

    async def request(self, *args, **kwargs):
        await real(self, *args, **kwargs)
        raise httpx.ReadError("cut")

    monkeypatch.setattr(httpx.AsyncClient, "request", request)
    with Client(server.url, secret_keys()[0]) as client, pytest.raises(ConnectionFailed):
        client.streams.input("approval").send(run_id, True)
    assert StreamChunkRow.objects.filter(stream__run=run_id).count() == 1


def test_a_loop_that_is_left_lets_go_of_its_connection(server):
    run_id = t.echo.trigger(1, delay="1h").id
    with Client(server.url, secret_keys()[0]) as client:
        for _ in client.runs.subscribe_to_run(run_id):
            break
        (connections_of_loop,) = client.runs._transport._by_loop.values()
        assert connections_of_loop.pool._transport._pool._requests == []


def test_a_loop_that_is_forgotten_blocks_no_event_loop(server):
    """Not even the one that would have to close it: the garbage collector may find it anywhere."""
    run_id = t.echo.trigger(1, delay="1h").id
    with Client(server.url, secret_keys()[0]) as client:
        left = [iter(client.runs.subscribe_to_run(run_id))]
        assert next(left[0]).id == run_id

        async def forget():
            left.clear()
            gc.collect()

        loop_thread.start(forget()).result(20)


async def test_one_client_serves_several_threads_and_loops(server):
    async with Client(server.url, secret_keys()[0]) as client:
        made = await asyncio.gather(*(client.tasks.atrigger("echo", number) for number in range(10)))
        found = await asyncio.gather(*(asyncio.to_thread(client.runs.retrieve, handle) for handle in made))
        assert [run.id for run in found] == [handle.id for handle in made]
        await asyncio.to_thread(client.close)
