"""Handing chunks over to the group commit without waiting for each: what comes while one commit runs goes together
into the next one, in order.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final

from django.db import transaction

from realtime_runs.engine.writer import GroupWriter
from realtime_runs.engine.writing import Target

_MOST_CHUNKS: Final = 500
_MOST_BYTES: Final = 1024 * 1024


class Feed:
    """For any thread, one at a time. An error is raised by the next call, and nothing more is stored."""

    def __init__(self, target: Target, writer: GroupWriter) -> None:
        self._target = target
        self._writer = writer
        self._lock = threading.Lock()
        self._chunks: list[bytes] = []
        self._bytes = 0
        self._is_busy = False
        self._error: BaseException | None = None
        self._waiters: list[tuple[bool, Future[None]]] = []  # True: for everything to be stored; False: for room

    def offer(self, data: bytes) -> "Future[None] | None":
        """Take a chunk. A future: wait for it before the next one, because there are many already."""
        with self._lock:
            self._raise()
            self._chunks.append(data)
            self._bytes += len(data)
            must_send = not self._is_busy
            self._is_busy = True
            full = None if self._has_room() else self._waiter(for_all=False)
        if must_send:
            self._send()
        return full

    def stored(self) -> "Future[None]":
        """Done when everything that was taken is stored, or with the error."""
        with self._lock:
            waiter = self._waiter(for_all=True)
            self._release()
        return waiter

    def _has_room(self) -> bool:
        return len(self._chunks) < _MOST_CHUNKS and self._bytes < _MOST_BYTES

    def _waiter(self, *, for_all: bool) -> "Future[None]":
        waiter: Future[None] = Future()
        waiter.set_running_or_notify_cancel()  # who is cancelled while it waits must not cancel it for us
        self._waiters.append((for_all, waiter))
        return waiter

    def _send(self) -> None:
        with self._lock:
            chunks, self._chunks, self._bytes = self._chunks, [], 0
            self._is_busy = bool(chunks)
            self._release()
        if chunks:
            self._writer.submit(self._target.append(chunks)).add_done_callback(self._ended)

    def _ended(self, written: "Future[list[int]]") -> None:
        if (error := written.exception()) is None:
            self._send()
            return
        with self._lock:
            self._error, self._is_busy = error, False
            self._release()

    def _release(self) -> None:
        """Let those go on who waited for what is so now."""
        waiting = []
        for for_all, waiter in self._waiters:
            if self._error is not None:
                waiter.set_exception(self._error)
            elif self._is_busy if for_all else not self._has_room():
                waiting.append((for_all, waiter))
            else:
                waiter.set_result(None)
        self._waiters = waiting

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error


class Sink:
    """Where the chunks of a pipe or writer go: into a feed, or straight to the table where nothing runs beside us."""

    def __init__(self, target: Target, encode: Callable[[Any], bytes]) -> None:
        self.target = target
        self._encode = encode
        writer = target.writer
        self._feed = Feed(target, writer) if isinstance(writer, GroupWriter) else None

    @property
    def is_inline(self) -> bool:
        return self._feed is None

    def put(self, value: Any) -> None:
        """May block. Raises ChunkInvalid and the like, or the error of an earlier write."""
        data = self._encode(value)
        if self._feed is None or transaction.get_connection().in_atomic_block:
            self.target.write(self.target.append([data]))
        elif full := self._feed.offer(data):
            full.result()

    async def aput(self, value: Any) -> None:
        data = self._encode(value)
        if self._feed is None:
            await self.target.awrite(self.target.append([data]))
        elif full := self._feed.offer(data):
            await asyncio.wrap_future(full)

    def drain(self) -> None:
        """Until everything is stored."""
        if self._feed is not None:
            self._feed.stored().result()

    async def adrain(self) -> None:
        if self._feed is not None:
            await asyncio.wrap_future(self._feed.stored())

    def fail(self) -> None:
        """Tell readers that the source has failed."""
        self.target.write(self.target.close("error"))

    async def afail(self) -> None:
        await self.target.awrite(self.target.close("error"))
