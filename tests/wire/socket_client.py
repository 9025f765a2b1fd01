"""A client of the WebSocket before the real ASGI application, in this process: frame by frame."""

import asyncio
import json
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from asgiref.testing import ApplicationCommunicator
from django.core.handlers.asgi import ASGIHandler

from realtime_runs import routing
from realtime_runs.access.keys import secret_keys

SECONDS = 10
PATH = "/realtime/v1/socket"
SUBPROTOCOL = "realtime-runs.v1"


def offers(credential: str | None = None) -> list[str]:
    return [SUBPROTOCOL, f"bearer.{credential or secret_keys()[0]}"]


class Socket:
    """`async with Socket(token) as socket`: opened, and `ready` has come. `frame` is the next one that is no ping."""

    def __init__(
        self,
        credential: str | None = None,
        *,
        subprotocols: Iterable[str] | None = None,
        headers: dict[str, str] | None = None,
        path: str = PATH,
        answers_pings: bool = True,
        application: Any = None,
        scheme: str = "ws",
    ) -> None:
        scope: dict[str, Any] = {
            "type": "websocket",
            "http_version": "1.1",
            "scheme": scheme,
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [
                (name.lower().encode(), value.encode())
                for name, value in ({"host": "127.0.0.1"} | (headers or {})).items()
            ],
            "subprotocols": [*(offers(credential) if subprotocols is None else subprotocols)],
            "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 50000),
        }
        self.application = application or routing.application(ASGIHandler())
        self._communicator = ApplicationCommunicator(self.application, scope)
        self._answers_pings = answers_pings
        self._last_id = 0
        self.pings = 0

    async def __aenter__(self) -> "Socket":
        await self.connect()
        frame = await self.frame()
        assert frame["type"] == "ready", frame
        self.ready = frame
        return self

    async def __aexit__(self, *args: object) -> None:
        await self.leave()

    async def connect(self) -> None:
        await self._communicator.send_input({"type": "websocket.connect"})
        message = await self._communicator.receive_output(SECONDS)
        assert message["type"] == "websocket.accept", message
        self.subprotocol = message["subprotocol"]

    async def leave(self) -> None:
        """The client goes away; waits until nothing works for it any more."""
        await self._communicator.send_input({"type": "websocket.disconnect", "code": 1001})
        with suppress(asyncio.CancelledError):
            await self._communicator.wait(SECONDS)

    async def refused(self) -> int:
        """Opens it, and the code with which it is closed at once."""
        await self.connect()
        try:
            return await self.closed()
        finally:
            await self.leave()

    # -- down ---------------------------------------------------------------------------------------------------------

    async def _message(self, seconds: float = SECONDS) -> dict[str, Any]:
        while True:
            message: dict[str, Any] = await self._communicator.receive_output(seconds)
            if message.get("text") != '{"type":"ping"}':
                return message
            self.pings += 1
            if self._answers_pings:
                await self.send(type="pong")

    async def frame(self) -> dict[str, Any]:
        message = await self._message()
        assert message["type"] == "websocket.send", message
        text = message["text"]
        assert len(text.encode()) < 256 * 1024
        found: dict[str, Any] = json.loads(text)
        return found

    async def closed(self) -> int:
        """The code with which the server closes it, whatever it sends before."""
        while (message := await self._message())["type"] != "websocket.close":
            pass
        code: int = message["code"]
        return code

    async def is_quiet(self, seconds: float = 0.2) -> bool:
        return await self._communicator.receive_nothing(seconds)

    # -- up -----------------------------------------------------------------------------------------------------------

    async def send(self, **fields: Any) -> None:
        await self.send_text(json.dumps(fields))

    async def send_text(self, text: str) -> None:
        await self._communicator.send_input({"type": "websocket.receive", "text": text})

    async def send_bytes(self, data: bytes) -> None:
        await self._communicator.send_input({"type": "websocket.receive", "bytes": data})

    async def subscribe(self, to: dict[str, Any], **more: Any) -> int:
        """The id of a new subscription."""
        self._last_id += 1
        await self.send(type="subscribe", id=self._last_id, to=to, **more)
        return self._last_id
