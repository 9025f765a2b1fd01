"""What goes down a socket, so that a client which does not read costs a bounded amount of memory."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

from realtime_runs.conf import app_settings
from realtime_runs.wire.closing import CloseCode, SocketClosed
from realtime_runs.wire.realtime.base import ClientLeft

_MOST_UNDER_WAY: Final = 1024 * 1024  # bytes that the client is not known to have read
_PING_EVERY: Final = 256 * 1024  # bytes
_LARGE: Final = 16 * 1024  # bytes; behind such a frame others get their turn
_PING: Final = '{"type":"ping"}'

Send = Callable[[dict[str, Any]], Awaitable[None]]


class Outlet:
    """Sends frames, and pings the client: when nothing else was sent for SOCKET_PING_SECONDS, and behind much that was.

    Daphne takes whatever is sent and keeps it until the client reads. But a client answers a ping only when it has read
    what is before it, so the pongs say how much is under way, and beyond a limit `send` waits for them.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._turn = asyncio.Lock()
        self._turn_of_data = asyncio.Lock()  # of those that wait for room: each looks anew when its turn comes
        self._room = asyncio.Event()
        self._room.set()
        self._sent = 0  # bytes
        self._read = 0  # of these the client has read for sure
        self._pinged_at = 0  # what was sent before the last ping
        self._pings: deque[int] = deque()  # what was sent before each that is not answered
        self._last_frame = self._last_progress = time.monotonic()

    async def send(self, frame: bytes) -> None:
        """State or chunks; waits while too much is under way."""
        async with self._turn_of_data:
            await self._room.wait()
            await self.say(frame)

    async def say(self, frame: bytes) -> None:
        """A small frame that cannot wait, because who sends it must go on reading."""
        async with self._turn:
            await self._send_text(frame.decode(), len(frame))
            if self._sent - self._pinged_at >= _PING_EVERY:
                await self._ping()
        if len(frame) > _LARGE:
            await asyncio.sleep(0)

    def pong(self) -> bool:
        """The client has answered; False if it was not asked."""
        if not self._pings:
            return False
        self._read = self._pings.popleft()
        self._last_progress = time.monotonic()
        self._update()
        return True

    async def keep_alive(self) -> float:
        """Ping when it is time; returns the seconds until it must be called again. Raises SocketClosed (4508)."""
        ping: float = app_settings.SOCKET_PING_SECONDS
        now = time.monotonic()
        if self._pings:
            left = self._last_progress + ping - now
            if left <= 0:
                raise SocketClosed(CloseCode.NO_PONG)
            return left
        left = self._last_frame + ping - now
        if left > 0:
            return left
        # On Uvicorn a send waits for a client that does not read, and this must not.
        try:
            await asyncio.wait_for(self._ping_in_turn(), ping)
        except TimeoutError:
            raise SocketClosed(CloseCode.NO_PONG) from None
        return ping

    async def _ping_in_turn(self) -> None:
        async with self._turn:
            await self._ping()

    async def _ping(self) -> None:
        if not self._pings:
            self._last_progress = time.monotonic()
        self._pings.append(self._sent)
        self._pinged_at = self._sent
        await self._send_text(_PING, len(_PING))

    async def _send_text(self, text: str, size: int) -> None:
        self._sent += size
        self._last_frame = time.monotonic()
        self._update()
        try:
            await self._send({"type": "websocket.send", "text": text})
        except Exception:  # each server has its own way to say it
            raise ClientLeft from None

    def _update(self) -> None:
        if self._sent - self._read < _MOST_UNDER_WAY:
            self._room.set()
        else:
            self._room.clear()
