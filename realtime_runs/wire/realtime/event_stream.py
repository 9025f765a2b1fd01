"""Server-Sent Events that a consumer sends (WHATWG HTML 9.2): prompt, kept alive, and over when a right is."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

from realtime_runs.access import tickets
from realtime_runs.access.principals import Principal
from realtime_runs.access.rules import Need
from realtime_runs.conf import app_settings
from realtime_runs.exceptions import AccessDenied
from realtime_runs.wire.encoding import dumps
from realtime_runs.wire.errors import refusal
from realtime_runs.wire.realtime.base import Headers, RealtimeConsumer, threads

HEADERS: Final = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",  # nginx would collect a page full of events first
}
PING: Final = b": ping\n\n"


def event(name: str, data: bytes, id: str = "") -> bytes:
    """`data` is JSON, so it has no line break; an id is one of our positions."""
    prefix = f"id: {id}\n" if id else ""
    return prefix.encode() + b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"


def end(reason: str, id: str = "") -> bytes:
    return event("end", dumps({"reason": reason}), id)


class EventStreamConsumer(RealtimeConsumer):
    """Sends events as they come. An EventSource of another origin, which cannot send headers, comes with a ticket."""

    async def authenticate(self) -> Principal:
        if "authorization" not in self.headers and (ticket := self.query.get("ticket")):
            self.principal = await threads.run(tickets.redeem, ticket)
            return self.principal
        return await super().authenticate()

    async def send_events(
        self,
        events: AsyncGenerator[bytes, None],
        need: Need,
        *,
        first: bytes = b": ok\n\n",
        headers: Headers | None = None,
        denied: bytes = end("auth"),
    ) -> None:
        """Until there are no more. Every PING_SECONDS it is asked again whether the caller may still do what it
        `need`s, and a comment is sent if nothing else was. `denied`: the last event for who may not.
        """
        await self.send_headers(headers={**HEADERS, **(headers or {})})
        await self.send_body(first, more_body=True)  # Daphne sends headers with the first bytes, so these are at once
        async with aclosing(events):
            coming: asyncio.Future[Any] = asyncio.ensure_future(anext(events))
            check_at = self._next_check()
            try:
                while True:
                    await asyncio.wait([coming], timeout=max(check_at - time.monotonic(), 0))
                    if time.monotonic() >= check_at:
                        if not await self._may_go_on(need):
                            await self.send_body(denied, more_body=True)
                            break
                        check_at = self._next_check()
                        if not coming.done():
                            await self.send_body(PING, more_body=True)
                    if not coming.done():
                        continue
                    try:
                        piece = coming.result()
                    except StopAsyncIteration:
                        break
                    except Exception as error:
                        await self.send_body(event("error", dumps(refusal(error).body)), more_body=True)
                        break
                    coming = asyncio.ensure_future(anext(events))
                    await self.send_body(piece, more_body=True)
            finally:
                coming.cancel()
                await asyncio.gather(coming, return_exceptions=True)  # a generator that runs cannot be closed
        await self.send_body(b"")

    def _next_check(self) -> float:
        ping: float = app_settings.PING_SECONDS
        return time.monotonic() + min(ping, self.principal.seconds_left)

    async def _may_go_on(self, need: Need) -> bool:
        """A token may have expired, a key been removed, a user been logged out."""
        try:
            if self.principal.seconds_left <= 0:
                return False
            if "ticket" not in self.query:  # which is used up
                await self.authenticate()
            await self.check(need)
        except AccessDenied:
            return False
        return True
