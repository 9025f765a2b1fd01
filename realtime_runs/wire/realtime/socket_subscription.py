"""One subscription of a socket: a task that pumps what it follows down, waiting for room before it asks for more."""

import asyncio
from contextlib import aclosing, suppress
from typing import Any, Final

from realtime_runs.exceptions import AccessDenied, NotFound
from realtime_runs.wire.closing import FrameTooLarge, socket_error
from realtime_runs.wire.encoding import dumps
from realtime_runs.wire.packet_urls import PacketUrls
from realtime_runs.wire.realtime.base import ClientLeft
from realtime_runs.wire.realtime.socket_caller import Caller
from realtime_runs.wire.realtime.socket_following import Gone, follow
from realtime_runs.wire.realtime.socket_frames import Subscribe
from realtime_runs.wire.realtime.socket_outlet import Outlet

_MOST_BYTES: Final = 1_000_000  # Daphne breaks the connection for a frame beyond 1 MiB


class Subscription:
    def __init__(self, frame: Subscribe, caller: Caller, outlet: Outlet, urls: PacketUrls) -> None:
        self._id = frame.id
        self._caller = caller
        self._outlet = outlet
        self._following = follow(caller, frame, urls)
        self._is_open = False
        self.task = asyncio.ensure_future(self._pump())

    def ack(self, at: int) -> bool:
        return self._following.ack(at)

    async def check(self) -> None:
        """End it if the caller may not read it any more."""
        if not self._is_open:
            return
        try:
            await self._caller.check(await self._following.need())
        except (AccessDenied, NotFound) as error:
            await self._stop("error", socket_error(error).fields)

    async def unsubscribe(self) -> None:
        await self._stop("end", {"reason": "unsubscribed"})

    async def _stop(self, type_: str, fields: dict[str, Any]) -> None:
        if self.task.done():
            return
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self._say(type_, fields)

    async def _pump(self) -> None:
        try:
            await self._send_all()
        except ClientLeft:
            return
        except Gone as gone:
            await self._say("end", {"at": gone.at, "reason": "gone"} if gone.at is not None else {"reason": "gone"})
        except Exception as error:
            await self._say("error", socket_error(error).fields)
        else:
            await self._say("end", self._following.end)

    async def _send_all(self) -> None:
        principal = None
        while principal is not self._caller.principal:  # which may be refreshed meanwhile
            principal = self._caller.principal
            await self._following.open()
        self._is_open = True
        async with aclosing(self._following.bodies()) as bodies:
            async for type_, body in bodies:
                frame = b'{"type":"%s","id":%d,%s}' % (type_.encode(), self._id, body)
                if len(frame) > _MOST_BYTES:
                    raise FrameTooLarge
                await self._outlet.send(frame)

    async def _say(self, type_: str, fields: dict[str, Any]) -> None:
        with suppress(ClientLeft):
            await self._outlet.say(dumps({"type": type_, "id": self._id, **fields}))
