"""Credentials stay out of what a server prints."""

import httpx
import pytest

from realtime_runs.access.keys import secret_keys
from tests.access.claims import a_token
from tests.conftest import SERVERS
from tests.wire.api import token

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("kind", SERVERS)
def test_no_credential_is_in_a_log_line(asgi_server, kind):
    server = asgi_server(kind, BACKEND="tests.in_process.IdleBackend")
    credentials = [
        secret_keys()[0],
        token("read:runs"),
        a_token(exp=1),
        a_token(key="f" * 40),
        "wrong-key-canary-" + "x" * 20,
    ]
    with httpx.Client(base_url=server.url, timeout=20) as client:
        for credential in credentials:
            headers = {"Authorization": f"Bearer {credential}"}
            for method, path in (
                ("GET", "/api/v1/runs"),
                ("POST", "/api/v1/tasks/echo/trigger"),
                ("GET", "/api/v3/runs/run_nothing"),
                ("GET", "/realtime/v1/runs/run_nothing"),
                ("POST", "/realtime/v1/tickets"),
                ("GET", "/nowhere"),
            ):
                answer = client.request(method, path, headers=headers, content=b"{" if method == "POST" else None)
                assert answer.status_code < 500
                assert credential not in answer.text
    printed = server.process.output()
    assert "/realtime/v1/tickets" in printed  # it does print what it was asked
    assert [credential for credential in credentials if credential in printed] == []
