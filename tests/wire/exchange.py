"""One request to the real ASGI application, in this process: what is sent and received piece by piece."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from asgiref.testing import ApplicationCommunicator
from django.core.handlers.asgi import ASGIHandler

from realtime_runs import routing
from realtime_runs.access.keys import secret_keys

SECONDS = 10


def key_header(key: str | None = None) -> dict[str, str]:
    return {"authorization": f"Bearer {key or secret_keys()[0]}"}


class Exchange:
    """`async with Exchange("GET", "/realtime/…?…", headers) as exchange`: `await exchange.start()`, then its pieces."""

    def __init__(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = b""
    ) -> None:
        """`body` None: it is sent later, by `send_body`."""
        path, _, query = path.partition("?")
        scope: dict[str, Any] = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [
                (b"host", b"127.0.0.1"),
                *((name.lower().encode(), value.encode()) for name, value in (headers or {}).items()),
            ],
            "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 50000),
        }
        # Not `get_asgi_application`, which sets Django up again, logging and all, for each of thousands of requests.
        self._communicator = ApplicationCommunicator(routing.application(ASGIHandler()), scope)
        self._body = body
        self.is_over = False

    async def __aenter__(self) -> "Exchange":
        if self._body is not None:
            await self.send_body(self._body, more=False)
        return self

    async def __aexit__(self, *args: object) -> None:
        await self.leave()

    async def send_body(self, part: bytes, *, more: bool = True) -> None:
        await self._communicator.send_input({"type": "http.request", "body": part, "more_body": more})

    async def start(self) -> int:
        """The status; `headers` are there then."""
        message = await self._communicator.receive_output(SECONDS)
        assert message["type"] == "http.response.start", message
        self.status: int = message["status"]
        self.headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
        return self.status

    async def piece(self, seconds: float = SECONDS) -> bytes:
        """The next piece of the answer's body."""
        message = await self._communicator.receive_output(seconds)
        assert message["type"] == "http.response.body", message
        self.is_over = not message.get("more_body", False)
        body: bytes = message.get("body", b"")
        return body

    async def rest(self) -> bytes:
        parts = []
        while not self.is_over:
            parts.append(await self.piece())
        return b"".join(parts)

    async def json(self) -> Any:
        return json.loads(await self.rest())

    async def is_quiet(self, seconds: float = 0.2) -> bool:
        return await self._communicator.receive_nothing(seconds)

    async def leave(self) -> None:
        """The client goes away; waits until nothing works for it any more."""
        await self._communicator.send_input({"type": "http.disconnect"})
        with suppress(asyncio.CancelledError):
            await self._communicator.wait(SECONDS)


async def ask(method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Exchange:
    """A whole exchange: `status`, `headers` and `data`, the JSON of the answer, or its bytes."""
    async with Exchange(method, path, headers, body) as exchange:
        await exchange.start()
        answer = await exchange.rest()
    is_json = answer and exchange.headers.get("content-type") == "application/json"
    exchange.data = json.loads(answer) if is_json else answer  # type: ignore[attr-defined]
    return exchange
