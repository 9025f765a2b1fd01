"""Streams with the official SDK and the stream manager of its workers, on both servers."""

from collections.abc import Callable

import pytest

from tests.conftest import SERVERS, WebServer
from tests.interop.conftest import checks_of


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest, node: str, serve_module: Callable[..., WebServer]) -> WebServer:
    return serve_module(request.param)


@pytest.mark.parametrize("check", checks_of("streams.mjs"))
def test_streams(check, passes):
    passes("streams.mjs", check)


@pytest.mark.parametrize("server", ["uvicorn"], indirect=True)  # Daphne hands a request on when it is complete
@pytest.mark.parametrize("check", checks_of("piping.mjs"))
def test_live_pipes(check, passes):
    passes("piping.mjs", check)
