"""Calling a function for each record of an input stream, beside the task."""

import asyncio
import contextvars
import inspect
import logging
from collections.abc import Callable
from typing import Any, Final

from asgiref.sync import async_to_sync, sync_to_async

from realtime_runs.database import DatabaseThreads
from realtime_runs.engine.backends.base import get_backend
from realtime_runs.engine.context import ActiveRun, is_on_event_loop
from realtime_runs.engine.inputs import atake, has_more, listen_to, take
from realtime_runs.engine.pausing import NEVER, await_until
from realtime_runs.exceptions import LeaseLost
from realtime_runs.live.closing import Closable
from realtime_runs.live.listeners import Listener
from realtime_runs.models import StreamName

logger = logging.getLogger("realtime_runs.engine")

_threads: Final = DatabaseThreads("realtime-runs-input", threads=8)
_going_on: Final[set["InputHandling"]] = set()  # an event loop alone does not keep its tasks alive


class InputHandling(Closable):
    """Goes on until `close()`, or until the task ends; one call at a time, in the order of the records. What a
    handler raises is logged, and the next record is handled. `with` and `async with` close it at the end.
    """

    def __init__(self, active: ActiveRun, name: StreamName, handle: Callable[[bytes], Any], *, is_async: bool) -> None:
        super().__init__()
        self._active = active
        self._name = name
        self._handle = handle
        self._is_async = is_async
        if get_backend().executes_inline and not is_on_event_loop():
            self._handle_what_is_there()  # a test: nothing runs beside its task
        else:
            _going_on.add(self)
            active.at_end.append(self.close)
            going_on = asyncio.run_coroutine_threadsafe(self._go_on(), active.loop)
            going_on.add_done_callback(lambda _: _going_on.discard(self))

    def _listen(self, wake: Callable[[], None], loop: asyncio.AbstractEventLoop | None) -> Listener:
        listener = listen_to(self._name)(wake, loop)
        self._opens(listener)
        return listener

    async def _go_on(self) -> None:
        try:
            while not self._closed:
                found = await await_until(
                    self._active, lambda: has_more(self._name), self._listen, NEVER, closed=lambda: self._closed
                )
                if not found or self._closed:
                    return
                if (data := await atake(self._active, self._name)) is not None:
                    await self._call(data)
        except LeaseLost:
            return  # another attempt goes on with it
        except Exception:
            logger.exception("Input %r of run %s is not handled any more.", self._name.key, self._name.run_id)

    async def _call(self, data: bytes) -> None:
        try:
            if self._is_async:
                await self._handle(data)
            elif get_backend().executes_inline:
                await sync_to_async(self._handle)(data)
            else:
                await _threads.run(contextvars.copy_context().run, self._handle, data)
        except Exception:
            logger.exception("The handler of input %r of run %s failed.", self._name.key, self._name.run_id)

    def _handle_what_is_there(self) -> None:
        while (data := take(self._active, self._name)) is not None:
            async_to_sync(self._call)(data)


def is_async(handler: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004
