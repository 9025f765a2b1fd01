"""What everything that can be read live has in common: it can be closed from outside, and told to stop by a signal."""

import asyncio
import threading
import weakref
from types import TracebackType
from typing import Final, Self

from django.core.exceptions import SynchronousOnlyOperation

from realtime_runs.live.listeners import Listener

Signal = asyncio.Event | threading.Event

SIGNAL_SECONDS: Final = 0.1  # how often a signal is looked at that cannot wake this kind of loop


class Closable:
    """Base of what is read with `for` or `async for`, as often as one likes; `with` closes it at the end."""

    def __init__(self) -> None:
        # Weak: a reader that left its loop must not be kept alive by this.
        self._listeners: weakref.WeakSet[Listener] = weakref.WeakSet()
        self._closed = False

    def close(self) -> None:
        """End every loop over this; may be called from any thread."""
        self._closed = True
        for listener in list(self._listeners):
            listener.close()

    def _opens(self, listener: Listener) -> bool:
        """Let `close` reach this reader. False when it came too late."""
        self._listeners.add(listener)
        return not self._closed  # asked after `close` can reach it

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


def refuse_on_event_loop(what: str) -> None:
    """Raise SynchronousOnlyOperation for a plain `for` where an event loop runs, which it would stop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise SynchronousOnlyOperation(f"{what} blocks; use `async for` where an event loop runs.")


async def wait_for_bell(rung: asyncio.Event, signal: Signal | None) -> bool:
    """Until the bell rang (True) or the signal may be set (False)."""
    if signal is None:
        return await rung.wait()
    if isinstance(signal, threading.Event):
        try:
            return await asyncio.wait_for(rung.wait(), SIGNAL_SECONDS)
        except TimeoutError:
            return False
    waits = [asyncio.create_task(rung.wait()), asyncio.create_task(signal.wait())]
    try:
        ended, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()  # raises for a signal that belongs to another event loop
    finally:
        for task in waits:
            task.cancel()
    return rung.is_set()
