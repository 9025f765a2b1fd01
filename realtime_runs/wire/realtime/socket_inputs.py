"""What a client sends to runs over its socket: stored in the order in which it came."""

import asyncio
from contextlib import suppress
from functools import partial
from typing import Any, Final

from realtime_runs import streams
from realtime_runs.access import rules
from realtime_runs.wire.closing import TOO_MANY, SocketError, socket_error
from realtime_runs.wire.encoding import dumps
from realtime_runs.wire.realtime.base import ClientLeft
from realtime_runs.wire.realtime.socket_caller import Caller
from realtime_runs.wire.realtime.socket_frames import Send
from realtime_runs.wire.realtime.socket_outlet import Outlet

_MOST_WAITING: Final = 1024 * 1024  # bytes


class Inputs:
    def __init__(self, caller: Caller, outlet: Outlet) -> None:
        self._caller = caller
        self._outlet = outlet
        self._waiting: asyncio.Queue[Send] = asyncio.Queue()
        self._bytes = 0

    async def put(self, frame: Send) -> None:
        if self._bytes + frame.size > _MOST_WAITING:
            await self._refuse(frame, TOO_MANY)
            return
        self._bytes += frame.size
        self._waiting.put_nowait(frame)

    async def run(self) -> None:
        """Never ends."""
        while True:
            frame = await self._waiting.get()
            try:
                await self._store(frame)
            except Exception as error:
                await self._refuse(frame, socket_error(error))
            else:
                await self._say({"type": "sent", "id": frame.id})
            self._bytes -= frame.size

    async def _store(self, frame: Send) -> None:
        run = await self._caller.find_run(frame.run_id, partial(rules.send_input, frame.run_id))
        await streams.input(frame.input).asend(run.pk, frame.data)

    async def _refuse(self, frame: Send, error: SocketError) -> None:
        await self._say({"type": "error", "id": frame.id, **error.fields})

    async def _say(self, fields: dict[str, Any]) -> None:
        with suppress(ClientLeft):
            await self._outlet.say(dumps(fields))
