"""What can be read live over HTTP: for `for`, `async for`, `with` and `async with`; by one loop, which is async."""

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

import httpx
from httpx_sse import EventSource, ServerSentEvent

from realtime_runs.client.errors import error_of
from realtime_runs.client.transport import Transport, _loop_thread, is_tried_again, pause, refuse_on_event_loop
from realtime_runs.exceptions import ConnectionFailed

T = TypeVar("T")

Signal = asyncio.Event | threading.Event
Headers = Callable[[], Mapping[str, str]]  # asked for at each connection: they say where to go on

_SIGNAL_SECONDS: Final = 0.1  # how often a signal is looked at that cannot wake an event loop
_FIRST_ATTEMPTS: Final = 5
_END: Final = object()


class Following(Generic[T]):
    """Each loop over it is a reading of its own. Leaving the loop, `close()`, or setting the signal ends it."""

    def __init__(self, signal: Signal | None) -> None:
        self._signal = signal
        self._closed = False
        self._stops: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    def _items(self) -> AsyncGenerator[T, None]:
        raise NotImplementedError

    def _when_aborted(self) -> None:
        """The signal was set; may raise."""

    def close(self) -> None:
        """End every loop over this; may be called from any thread."""
        self._closed = True
        for loop, stop in list(self._stops):
            with suppress(RuntimeError):  # its loop is closed, so it is over anyway
                loop.call_soon_threadsafe(stop.set)

    async def __aiter__(self) -> AsyncIterator[T]:
        stop = asyncio.Event()
        mine = (asyncio.get_running_loop(), stop)
        self._stops.add(mine)
        stopped = asyncio.ensure_future(self._stopped(stop))
        try:
            async with aclosing(self._items()) as items:
                while not self._is_over():
                    coming = asyncio.ensure_future(_next(items))
                    try:
                        await asyncio.wait([coming, stopped], return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        if not coming.done():
                            coming.cancel()
                            await asyncio.gather(coming, return_exceptions=True)
                    if coming.cancelled() or self._is_over():
                        coming.cancelled() or coming.exception()
                        continue
                    item = coming.result()
                    if item is _END:
                        return
                    yield item
        finally:
            self._stops.discard(mine)
            stopped.cancel()

    def _is_over(self) -> bool:
        if self._signal is not None and self._signal.is_set():
            self._when_aborted()
            return True
        return self._closed

    async def _stopped(self, stop: asyncio.Event) -> None:
        if self._signal is None:
            await stop.wait()
        while self._signal is not None and not self._signal.is_set() and not stop.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _SIGNAL_SECONDS)

    def __iter__(self) -> Iterator[T]:
        refuse_on_event_loop("This loop", "async for")
        return self._iterate()

    def _iterate(self) -> Iterator[T]:
        items = self.__aiter__()
        try:
            while True:
                coming = _loop_thread.start(_next(items))
                try:
                    item = coming.result()
                except BaseException:
                    coming.cancel()
                    raise
                if item is _END:
                    return
                yield item
        finally:
            with suppress(RuntimeError):  # it is still being cancelled, which closes it too
                _loop_thread.start(_close(items)).result()

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


def _next(items: AsyncIterator[Any]) -> Coroutine[Any, Any, Any]:
    async def step() -> Any:
        return await anext(items, _END)

    return step()


async def _close(items: Any) -> None:
    await items.aclose()


async def events(
    transport: Transport, path: str, headers: Headers, missing: Exception
) -> AsyncGenerator[ServerSentEvent | None, None]:
    """The events of a stream over as many connections as it takes; None where a connection has ended cleanly.

    Whoever reads them leaves when it knows that there are no more. Raises what the server refuses, and ConnectionFailed
    when it could not be reached at first.
    """
    attempt, was_connected, has_refreshed = 0, False, False
    while True:
        try:
            async with transport.events(path, headers()) as response:
                if response.status_code == 204:
                    return
                if response.status_code == 401 and not has_refreshed and await transport.refresh():
                    has_refreshed = True
                    continue
                if not is_tried_again(response):
                    if not response.is_success:
                        raise error_of(response.status_code, await response.aread(), missing)
                    attempt, was_connected, has_refreshed = 0, True, False
                    async for event in EventSource(response).aiter_sse():
                        yield event
                    yield None
        except httpx.TransportError as error:
            if not was_connected and attempt == _FIRST_ATTEMPTS:
                raise ConnectionFailed(path, str(error) or type(error).__name__) from error
        await asyncio.sleep(pause(attempt))
        attempt += 1
