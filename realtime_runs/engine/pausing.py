"""What everything that a task can wait for has in common: the run is WAITING meanwhile, and its slot is free for
others; the wait ends when something is there, when the time is up, or when the run is told to stop.
"""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final, TypeVar

from asgiref.sync import sync_to_async
from django.db import InterfaceError, OperationalError, transaction

from realtime_runs.database import close_lost, read, readers
from realtime_runs.engine import lifecycle
from realtime_runs.engine.backends.base import get_backend
from realtime_runs.engine.context import ActiveRun, active_run, refuse_to_block
from realtime_runs.exceptions import InvalidInput, RunStopped
from realtime_runs.live.closing import SIGNAL_SECONDS
from realtime_runs.live.hub import hub
from realtime_runs.live.listeners import Listener

logger = logging.getLogger("realtime_runs.engine")

T = TypeVar("T")

#: Makes the listener that rings when it is worth looking: from how to wake, and the event loop on which.
Listen = Callable[[Callable[[], None], asyncio.AbstractEventLoop | None], Listener]

NEVER: Final = float("inf")
_RETRY_SECONDS: Final = 0.2
# Where runs execute inline, in tests, only this thread's connection sees what there is, and no bell is rung in time.
_INLINE_SECONDS: Final = 0.05


def check_can_pause(what: str, instead: str) -> ActiveRun:
    """For sync code. Raises NotInsideRun, SynchronousOnlyOperation on an event loop, InvalidInput in a transaction."""
    refuse_to_block(what, instead)
    active = active_run(what)
    if transaction.get_connection().in_atomic_block and not get_backend().executes_inline:
        raise InvalidInput(f"{what} inside a transaction would keep its locks while it waits.")
    return active


@contextmanager
def paused(active: ActiveRun) -> Iterator[None]:
    """WAITING inside of the block. For sync code."""
    if get_backend().executes_inline:  # its event loop needs this very thread for its writes
        active.metadata.flush()
        active.writer.write(lambda: lifecycle.wait(active.lease))
        try:
            yield
        finally:
            active.writer.write(lambda: lifecycle.resume(active.lease))
        return
    asyncio.run_coroutine_threadsafe(active.begin_wait(), active.loop).result()
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(active.end_wait(), active.loop).result()
        if not transaction.get_connection().in_atomic_block:
            close_lost()  # a wait may be long


@asynccontextmanager
async def apaused(active: ActiveRun) -> AsyncIterator[None]:
    """WAITING inside of the block. For async code."""
    await active.begin_wait()
    try:
        yield
    finally:
        ending = asyncio.ensure_future(active.end_wait())
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError:
            await ending  # the slot that was given away must be ours again before the run ends and gives it back
            raise


def wait_until(active: ActiveRun, look: Callable[[], T | None], listen: Listen, until: float) -> T | None:
    """Block until `look` finds something, and return that; None at `until`, a time of `time.monotonic`.

    Looks before it waits and whenever the listener rings. Raises RunStopped when this run is told to stop.
    """
    rung = threading.Event()
    listener = listen(rung.set, None)
    is_inline = get_backend().executes_inline
    longest = _INLINE_SECONDS if is_inline else SIGNAL_SECONDS  # the signal cannot wake us
    if until == NEVER and transaction.get_connection().in_atomic_block:
        until = 0  # in a test that lives in a transaction: nobody else could make what this waits for
    if not is_inline:
        hub.join(listener).result()
    try:
        must_look = True
        while True:
            left = until - time.monotonic()
            if must_look or left <= 0:
                rung.clear()  # before looking: what comes meanwhile rings again
                try:
                    if (found := read(look)) is not None:
                        return found
                except (OperationalError, InterfaceError) as error:
                    _log_loss(active, error)
                    active.context.signal.wait(_RETRY_SECONDS)
                    rung.set()
            if active.context.signal.is_set():
                raise RunStopped(active.run.id)
            if left <= 0:
                return None
            must_look = rung.wait(min(left, longest)) or is_inline
    finally:
        if not is_inline:
            hub.leave(listener)


async def await_until(
    active: ActiveRun, look: Callable[[], T | None], listen: Listen, until: float, closed: Callable[[], bool] = bool
) -> T | None:
    """The same without blocking. When this run is told to stop, its task is cancelled. Also None when `closed` says so
    after the listener rang.
    """
    rung = asyncio.Event()
    listener = listen(rung.set, asyncio.get_running_loop())
    is_inline = get_backend().executes_inline
    joined = None if is_inline else hub.join(listener)
    try:
        if joined is not None:
            await asyncio.wrap_future(joined)
        while not closed():
            left = until - time.monotonic()
            rung.clear()
            try:
                if (found := await aread(look)) is not None:
                    return found
            except (OperationalError, InterfaceError) as error:
                _log_loss(active, error)
                await asyncio.sleep(_RETRY_SECONDS)
                rung.set()
            if left <= 0:
                return None
            try:
                async with asyncio.timeout(
                    min(left, _INLINE_SECONDS) if is_inline else None if left == NEVER else left
                ):
                    await rung.wait()
            except TimeoutError:
                pass  # the next look is the last one
        return None
    finally:
        if joined is not None:
            hub.leave(listener)


async def aread(fn: Callable[[], T]) -> T:
    """Call `fn` on a connection that sees what the running task sees."""
    return await sync_to_async(fn)() if get_backend().executes_inline else await readers.run(fn)


def _log_loss(active: ActiveRun, error: Exception) -> None:
    # If it takes too long, the heartbeat gives the run up, and that ends the wait.
    logger.warning("Run %s waits, and the database cannot be read; trying again: %s", active.run.id, error)
