"""The same calls in this process and over HTTP. Servers last for a module; its tests empty the database as usual."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio

from realtime_runs import batch, runs, streams, tasks, wait
from realtime_runs.access.keys import secret_keys
from realtime_runs.client import Client
from tests.conftest import EMBEDDED, PROCESSES, Process, WebServer, environment_of_servers, serve
from tests.in_process import worker_in_thread


@contextmanager
def a_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """With a worker inside."""
    processes: list[Process] = []

    def start(arguments: list[str], env: dict[str, str]) -> Process:
        processes.append(Process(arguments, env, tmp_path_factory.mktemp("server") / "log"))
        return processes[-1]

    try:
        yield serve(start, environment_of_servers(), "uvicorn", "--log-level", "warning", BACKSTOP_SECONDS=0.2)
    finally:
        for process in processes:
            process.kill9()


@pytest.fixture(scope="module")
def module_server(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    with a_server(tmp_path_factory) as started:
        yield started


@pytest.fixture
def server(request: pytest.FixtureRequest, module_server: WebServer) -> WebServer:
    request.node.stash.setdefault(PROCESSES, []).append(module_server.process)
    return module_server


@pytest.fixture
def client(server: WebServer) -> Iterator[Client]:
    with Client(server.url, secret_keys()[0]) as made:
        yield made


@pytest.fixture(scope="module", params=["in this process", "over HTTP"])
def place(
    request: pytest.FixtureRequest, django_db_setup: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WebServer | None]:
    """A server, which no test in this process must meet: its worker would take the runs."""
    if request.param == "in this process":
        yield None
        return
    with a_server(tmp_path_factory) as started:
        yield started


@pytest.fixture
def api(
    request: pytest.FixtureRequest, place: WebServer | None, settings: Any, transactional_db: None
) -> Iterator[Any]:
    """An object with `tasks`, `runs`, `batch`, `streams` and `wait`."""
    if place is not None:
        request.node.stash.setdefault(PROCESSES, []).append(place.process)
        with Client(place.url, secret_keys()[0]) as made:
            yield made
        return
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "BACKEND": EMBEDDED}
    with worker_in_thread():
        yield SimpleNamespace(tasks=tasks, runs=runs, batch=batch, streams=streams, wait=wait)


@pytest_asyncio.fixture
async def async_api(api: Any) -> AsyncIterator[Any]:
    """The same for an async test."""
    yield api
    if isinstance(api, Client):
        await api.aclose()
