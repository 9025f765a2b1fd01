"""Reading a stream live: the table from an index on, then what comes, each chunk once and in order.

The loop is written twice, for `for` and for `async for`; everything that decides something is in `Cursor`, once.
"""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing
from typing import Any, Final, Generic, TypeVar

from django.db import InterfaceError, OperationalError

from realtime_runs.database import read, readers
from realtime_runs.exceptions import StreamAborted, StreamGap, StreamTimeout
from realtime_runs.live.chunks import Chunk
from realtime_runs.live.closing import SIGNAL_SECONDS, Closable, Signal, refuse_on_event_loop, wait_for_bell
from realtime_runs.live.hub import hub
from realtime_runs.live.items import StreamRestarted
from realtime_runs.live.stream_reading import Page, read_page
from realtime_runs.live.tails import Tail, TailListener
from realtime_runs.models import StreamName

logger = logging.getLogger("realtime_runs.live")

T = TypeVar("T")

_FIRST_PAGE: Final = 64  # chunks; a chunk may have half a megabyte
_MOST_PER_PAGE: Final = 1000
_PAGE_BYTES: Final = 1024 * 1024
_RETRY_SECONDS: Final = 0.2


class Cursor:
    """Where a reader is in its stream, and what is new to it. No I/O."""

    def __init__(self, name: StreamName, start_index: int | None) -> None:
        self.name = name
        self.end_reason = ""
        self.limit = _FIRST_PAGE
        self.position = start_index or 0  # of the next chunk to be taken
        self.given = self.position  # of the next chunk to be given to the reader: it may leave amid what was taken
        self.needs_page = True  # the table is asked before anything is taken from the tail
        self._starts_latest = start_index is None
        # Index of the last chunk that was given; who begins later has what is before, and is told when that is void.
        self._last = start_index - 1 if start_index else None
        self._is_over = False

    @property
    def wanted(self) -> int | None:
        """From where to read a page; None: only how the stream is."""
        return None if self._starts_latest else self.position

    def take_page(self, page: Page) -> list[Chunk | StreamRestarted]:
        """Raises StreamGap when chunks that are wanted were removed."""
        if self._starts_latest:
            self._starts_latest = False
            self.position = self.given = page.next_index
        if page.restart_index > self.position:  # what is before it is of no use to anybody
            self.position = page.restart_index
            page = Page([], page.next_index, page.first_index, page.end_reason, page.restart_index)
        if page.first_index > self.position:
            raise StreamGap(self.name.run_id, self.name.key, self.position, page.first_index)
        items = self._accept(page.chunks, page.restart_index)
        self.needs_page = self.position < page.next_index
        self._is_over = bool(page.end_reason) and not self.needs_page
        self.end_reason = page.end_reason if self._is_over else ""
        if page.chunks:
            average = sum(len(chunk.data) for chunk in page.chunks) // len(page.chunks)
            self.limit = min(_MOST_PER_PAGE, max(1, _PAGE_BYTES // max(average, 1)))
        return items

    def take_tail(self, tail: Tail) -> list[Chunk | StreamRestarted]:
        """What the tail has; sets `needs_page` when the table must be asked instead."""
        end_reason, next_index = tail.end_reason, tail.next_index  # before the chunks: they are complete then
        chunks = tail.after(self.position)
        if chunks is None:
            self.needs_page = True
            return []
        items = self._accept(chunks, tail.restart_index)
        if end_reason and next_index is not None and self.position >= next_index and not tail.is_behind:
            self._is_over, self.end_reason = True, end_reason
        elif end_reason and not chunks:
            self.needs_page = True  # only the table knows whether that is all
        return items

    @property
    def is_over(self) -> bool:
        return self._is_over

    def may_go_on(self, tail: Tail) -> bool:
        """Whether it is not over, or more was stored after all."""
        if self._is_over and tail.stored > self.position:
            self._is_over, self.end_reason = False, ""
        return not self._is_over

    def _accept(self, chunks: list[Chunk], restart_index: int) -> list[Chunk | StreamRestarted]:
        items: list[Chunk | StreamRestarted] = []
        for chunk in chunks:
            if chunk.index < restart_index:
                continue
            if self._last is not None and self._last < restart_index:
                items.append(StreamRestarted(self.name.run_id, self.name.key, chunk.attempt, chunk.index))
            items.append(chunk)
            self._last = chunk.index
        if chunks:
            self.position = max(self.position, chunks[-1].index + 1, restart_index)
        return items


class ChunkReader(Closable, Generic[T]):
    """The items of a stream: for `for`, `async for`, `with` and `async with`.

    Each loop begins at `start_index` (None: only what comes from now on). It ends when the stream is closed, at the
    latest with its run; then `end_reason` says why. Raises RunNotFound, StreamTimeout when nothing came for `timeout`
    seconds, StreamAborted when the signal was set, StreamGap when chunks were removed by retention. A lost database is
    waited for until the time-out. Leaving the loop, or `close()`, releases everything.
    """

    def __init__(
        self,
        name: StreamName,
        convert: Callable[[Chunk], T],
        *,
        start_index: int | None = 0,
        timeout: float | None,
        signal: Signal | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self._convert = convert
        self._start_index = start_index
        self._timeout = timeout
        self._signal = signal
        self._begin()

    @property
    def end_reason(self) -> str:
        """Why the last loop came to the end of the stream; empty before: `closed`, `error`, or how the run ended."""
        return self._end_reason

    @property
    def next_index(self) -> int:
        """Where the last loop would go on; give it as `start_index` to another reader."""
        return self._cursor.given

    @property
    def is_live(self) -> bool:
        """Whether the last page that was taken held all that was stored."""
        return not self._cursor.needs_page

    def __iter__(self) -> Iterator[T | StreamRestarted]:
        refuse_on_event_loop("A reader")
        return self._iterate()

    def _iterate(self) -> Iterator[T | StreamRestarted]:
        rung = threading.Event()
        listener = TailListener(self.name, rung.set)
        cursor = self._begin()
        if not self._opens(listener):
            return
        joined = hub.join(listener)
        try:
            joined.result()
            until = self._deadline()
            while not cursor.is_over:
                rung.clear()  # before looking: what comes meanwhile rings again
                items: list[Chunk | StreamRestarted] = []
                if cursor.needs_page or listener.must_look:
                    listener.must_look = False
                    try:
                        items = cursor.take_page(read(read_page, self.name, cursor.wanted, cursor.limit))
                    except (OperationalError, InterfaceError) as error:
                        self._log_loss(error)
                        rung.wait(_RETRY_SECONDS)
                else:
                    items = cursor.take_tail(listener.tail)
                for item in items:
                    if self._must_stop():
                        return
                    yield item if isinstance(item, StreamRestarted) else self._give(item)
                if self._must_stop():
                    return
                if items:
                    until = self._deadline()
                elif not cursor.needs_page and not cursor.is_over:
                    self._wait(rung, until)
                elif time.monotonic() > until:
                    self._time_out()
            self._end_reason = cursor.end_reason
        finally:
            hub.leave(listener)

    async def __aiter__(self) -> AsyncIterator[T | StreamRestarted]:
        async with aclosing(self._pages()) as pages:
            async for items in pages:
                for item in items:
                    if self._must_stop():
                        return
                    yield item if isinstance(item, StreamRestarted) else self._give(item)

    async def pages(self) -> AsyncGenerator[list[T], None]:
        """The same, but everything that is there is given at once, and a new beginning goes unsaid."""
        async with aclosing(self._pages()) as pages:
            async for items in pages:
                if chunks := [self._give(item) for item in items if isinstance(item, Chunk)]:
                    yield chunks

    async def _pages(self) -> AsyncGenerator[list[Chunk | StreamRestarted], None]:
        rung = asyncio.Event()
        listener = TailListener(self.name, rung.set, asyncio.get_running_loop())
        cursor = self._begin()
        if not self._opens(listener):
            return
        joined = hub.join(listener)
        try:
            await asyncio.wrap_future(joined)
            until = self._deadline()
            while not cursor.is_over:
                rung.clear()
                items: list[Chunk | StreamRestarted] = []
                if cursor.needs_page or listener.must_look:
                    listener.must_look = False
                    try:
                        items = cursor.take_page(await readers.run(read_page, self.name, cursor.wanted, cursor.limit))
                    except (OperationalError, InterfaceError) as error:
                        self._log_loss(error)
                        await asyncio.sleep(_RETRY_SECONDS)
                else:
                    items = cursor.take_tail(listener.tail)
                if items:
                    yield items
                if self._must_stop():
                    return
                if items:
                    until = self._deadline()
                elif not cursor.needs_page and not cursor.is_over:
                    await self._await(rung, until)
                elif time.monotonic() > until:
                    self._time_out()
            self._end_reason = cursor.end_reason
        finally:
            hub.leave(listener)

    def _begin(self) -> Cursor:
        self._end_reason = ""
        self._cursor = Cursor(self.name, self._start_index)
        return self._cursor

    def _give(self, chunk: Chunk) -> T:
        value = self._convert(chunk)
        self._cursor.given = chunk.index + 1
        return value

    def _must_stop(self) -> bool:
        """Raises StreamAborted."""
        if self._signal is not None and self._signal.is_set():
            raise StreamAborted(self.name.run_id, self.name.key, self.next_index)
        return self._closed

    def _deadline(self) -> float:
        return float("inf") if self._timeout is None else time.monotonic() + self._timeout

    def _time_out(self) -> Any:
        raise StreamTimeout(self.name.run_id, self.name.key, self._timeout or 0, self.next_index)

    def _wait(self, rung: threading.Event, until: float) -> None:
        left = until - time.monotonic()
        if left <= 0:
            self._time_out()
        rung.wait(min(left, SIGNAL_SECONDS) if self._signal else None if left == float("inf") else left)

    async def _await(self, rung: asyncio.Event, until: float) -> None:
        left = until - time.monotonic()
        if left <= 0:
            self._time_out()
        try:
            await asyncio.wait_for(wait_for_bell(rung, self._signal), None if left == float("inf") else left)
        except TimeoutError:
            return  # the next look finds that the time is up, or a chunk that came in the last moment

    def _log_loss(self, error: Exception) -> None:
        logger.warning("Stream %s of run %s cannot be read; trying again: %s", self.name.key, self.name.run_id, error)
