"""The same calls in this process and over HTTP."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from realtime_runs import batch, runs, streams, tasks, wait
from realtime_runs.access.keys import secret_keys
from realtime_runs.client import Client
from tests.conftest import EMBEDDED, WebServer
from tests.in_process import worker_in_thread


@pytest.fixture
def server(asgi_server: Callable[..., WebServer]) -> WebServer:
    """With a worker inside."""
    return asgi_server("uvicorn", "--log-level", "warning", BACKSTOP_SECONDS=0.2, STREAM_TIMEOUT_SECONDS=60)


@pytest.fixture
def client(server: WebServer) -> Iterator[Client]:
    with Client(server.url, secret_keys()[0]) as made:
        yield made


@pytest.fixture(params=["in this process", "over HTTP"])
def api(request: pytest.FixtureRequest, settings: Any) -> Iterator[Any]:
    """An object with `tasks`, `runs`, `batch`, `streams` and `wait`."""
    if request.param == "over HTTP":
        yield request.getfixturevalue("client")
        return
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "BACKEND": EMBEDDED}
    request.getfixturevalue("transactional_db")
    with worker_in_thread():
        yield SimpleNamespace(tasks=tasks, runs=runs, batch=batch, streams=streams, wait=wait)
