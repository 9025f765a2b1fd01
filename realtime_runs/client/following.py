"""What can be read live over HTTP: for `for`, `async for`, `with` and `async with`; by one loop, which is async."""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

import httpx
from httpx_sse import EventSource, ServerSentEvent

from realtime_runs.client.errors import error_of
from realtime_runs.client.transport import (
    Transport,
    is_on_event_loop,
    is_tried_again,
    loop_thread,
    pause,
    refuse_on_event_loop,
    wanted_pause,
)
from realtime_runs.exceptions import ConnectionFailed

logger = logging.getLogger("realtime_runs.client")

T = TypeVar("T")

Signal = asyncio.Event | threading.Event
Headers = Callable[[], Mapping[str, str]]  # asked for at each connection: they say where to go on

_SIGNAL_SECONDS: Final = 0.1  # how often a signal is looked at
_FIRST_ATTEMPTS: Final = 5
_STEADY_SECONDS: Final = 10.0  # a connection that lasted so long was not one of a series that fails


class Following(Generic[T]):
    """Each loop over it is a reading of its own. Leaving the loop, `close()`, or setting the signal ends it."""

    def __init__(self, signal: Signal | None) -> None:
        self._signal = signal
        self._closed = False
        self._stops: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    def _pages(self) -> AsyncGenerator[list[Any], None]:
        """What came together."""
        raise NotImplementedError

    def _give(self, item: Any) -> T:
        """One of these as its reader gets it, now."""
        given: T = item
        return given

    def _when_aborted(self) -> None:
        """The signal was set; may raise."""

    def close(self) -> None:
        """End every loop over this; may be called from any thread."""
        self._closed = True
        for loop, stop in list(self._stops):
            with suppress(RuntimeError):  # its loop is closed, so it is over anyway
                loop.call_soon_threadsafe(stop.set)

    def _is_over(self) -> bool:
        if self._signal is not None and self._signal.is_set():
            self._when_aborted()
            return True
        return self._closed

    async def __aiter__(self) -> AsyncIterator[T]:
        async with aclosing(self._until_stopped()) as pages:
            async for page in pages:
                for item in page:
                    if self._is_over():
                        return
                    yield self._give(item)

    def __iter__(self) -> Iterator[T]:
        refuse_on_event_loop("This loop", "async for")
        return self._iterate()

    def _iterate(self) -> Iterator[T]:
        pages = self._until_stopped()
        try:
            while True:
                coming = loop_thread.start(_next(pages))
                try:
                    page = coming.result()
                except BaseException:
                    coming.cancel()
                    raise
                if page is None:
                    return
                for item in page:
                    if self._is_over():
                        return
                    yield self._give(item)
        finally:
            closed = loop_thread.start(_close(pages))
            if not is_on_event_loop():  # where the garbage collector may have found this, and nothing may wait
                closed.result()

    async def _until_stopped(self) -> AsyncGenerator[list[Any], None]:
        stop = asyncio.Event()
        mine = (asyncio.get_running_loop(), stop)
        self._stops.add(mine)
        stopped = asyncio.ensure_future(self._stopped(stop))
        try:
            async with aclosing(self._pages()) as pages:
                while not self._is_over():
                    coming = asyncio.ensure_future(_next(pages))
                    try:
                        await asyncio.wait([coming, stopped], return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        if not coming.done():
                            coming.cancel()
                            await asyncio.gather(coming, return_exceptions=True)
                    if coming.cancelled():
                        continue
                    page = coming.result()
                    if page is None:
                        return
                    yield page
        finally:
            self._stops.discard(mine)
            stopped.cancel()

    async def _stopped(self, stop: asyncio.Event) -> None:
        if self._signal is None:
            await stop.wait()
        while self._signal is not None and not self._signal.is_set() and not stop.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _SIGNAL_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def _next(pages: AsyncGenerator[list[Any], None]) -> list[Any] | None:
    return await anext(pages, None)


async def _close(pages: Any) -> None:
    while pages.ag_running:  # a step that was given up is being cancelled
        await asyncio.sleep(0.01)
    await pages.aclose()


async def events(
    transport: Transport,
    path: str,
    headers: Headers,
    missing: Exception,
    opened: Callable[[Mapping[str, str]], None] = lambda headers: None,
) -> AsyncGenerator[ServerSentEvent | None, None]:
    """The events of a stream over as many connections as it takes; None where a connection has ended cleanly.

    Whoever reads them leaves when it knows that there are no more. `opened`: is told the headers of each answer. Raises
    what the server refuses; ConnectionFailed or ServerError when it did not answer as it should right from the start.
    """
    attempt, was_connected, has_refreshed = 0, False, False
    while True:
        token, began, seconds, reason = transport.token, time.monotonic(), 0.0, "it ended"
        gives_up = not was_connected and attempt == _FIRST_ATTEMPTS - 1
        try:
            async with transport.events(path, token, headers()) as response:
                if response.status_code == 204:
                    return
                if response.status_code == 401 and not has_refreshed and await transport.refresh(token):
                    has_refreshed = True
                    continue
                if response.is_success and "text/event-stream" in response.headers.get("Content-Type", ""):
                    was_connected, has_refreshed = True, False
                    opened(response.headers)
                    async with aclosing(EventSource(response).aiter_sse()) as coming:
                        async for event in coming:
                            if event.event != "error":
                                attempt = 0
                            yield event
                    yield None
                elif gives_up or not is_tried_again(response):
                    raise error_of(response.status_code, await response.aread(), missing)
                else:
                    seconds, reason = wanted_pause(response), f"the server answered {response.status_code}"
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            if gives_up:
                raise ConnectionFailed(transport.base_url, reason) from error
        if time.monotonic() - began > _STEADY_SECONDS:
            attempt = 0
        logger.info("The connection to %s is made again: %s", path, reason)
        await asyncio.sleep(max(pause(attempt), seconds))
        attempt += 1
