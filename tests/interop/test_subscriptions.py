"""Run subscriptions with the official SDK, on both servers: a long poll ends differently on each."""

from collections.abc import Callable

import pytest

from tests.conftest import SERVERS, WebServer
from tests.interop.conftest import checks_of


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest, node: str, serve_module: Callable[..., WebServer]) -> WebServer:
    return serve_module(request.param)


@pytest.mark.parametrize("check", checks_of("subscriptions.mjs"))
def test_subscriptions(check, passes):
    passes("subscriptions.mjs", check)
