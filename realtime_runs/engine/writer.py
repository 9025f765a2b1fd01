"""How a worker writes. Group commit: what waits while one transaction runs goes into the next one together.

One commit for a hundred small writes is what makes a worker fast on SQLite, where writers queue, and saves round trips
on PostgreSQL. A write is a function of `lifecycle` or `editing`; it may raise LeaseLost, and then it has written
nothing.
"""

import asyncio
import atexit
import logging
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeVar

from asgiref.sync import sync_to_async
from django.db import DatabaseError, InterfaceError, OperationalError, connection, transaction

from realtime_runs.conf import app_settings
from realtime_runs.database import DatabaseThreads, note_loss
from realtime_runs.engine import ledger
from realtime_runs.engine.appending import Append, append_all
from realtime_runs.exceptions import LeaseLost
from realtime_runs.turns import atomic

logger = logging.getLogger("realtime_runs.engine")

T = TypeVar("T")

_MOST_PER_COMMIT: Final = 200
_FIRST_PAUSE_SECONDS: Final = 0.05
_FULL_SECONDS: Final = 0.005
# A row that somebody else keeps locked must not keep other runs from writing. Shorter than PostgreSQL's
# deadlock_timeout (1 s), so that in a deadlock it is always us who give way and try again, and never a user's cancel.
_LOCK_TIMEOUT: Final = "300ms"


@dataclass(slots=True, eq=False)
class _Write:
    fn: Callable[[], Any]
    future: "Future[Any] | asyncio.Future[Any]"
    loop: asyncio.AbstractEventLoop | None = None  # on which an asyncio future belongs


class GroupWriter:
    """Joins the writes of all runs of a worker.

    Order is kept within a run, because a run waits for each of its writes.
    """

    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._reset)
        # Threads that stay: a worker hands its runs back while the interpreter shuts down.
        self._together = DatabaseThreads("realtime-runs-write", threads=2, kept=1, idle_seconds=5)
        self._alone = DatabaseThreads("realtime-runs-write-alone", threads=4, kept=1)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._has_room = threading.Condition(self._lock)
        self._waiting: list[_Write] = []
        self._backlog = 0  # bytes of chunks that wait
        self._busy = 0  # threads at work
        self._apart = 0  # writes that are made alone
        # Where one can write while another commits; SQLite has one writer at a time.
        self._most = 2 if connection.vendor == "postgresql" else 1

    def flush(self, timeout: float = 5.0) -> None:
        """Until nothing waits any more, or so many seconds."""
        with self._lock:
            self._has_room.wait_for(lambda: not (self._busy or self._apart), timeout)

    def start(self) -> None:
        """Start the threads that are needed until the very end of the process."""
        self._together.start()
        self._alone.start()

    def write(self, fn: Callable[[], T]) -> T:
        if transaction.get_connection().in_atomic_block:
            # The caller's transaction may hold what ours would wait for; so this joins it, and shares its end.
            with ledger.opened():
                return fn()
        if isinstance(fn, Append):
            with self._lock:
                self._has_room.wait_for(self._has_room_for_more)
        return self.submit(fn).result()

    async def awrite(self, fn: Callable[[], T]) -> T:
        while isinstance(fn, Append) and not self._has_room_for_more():
            await asyncio.sleep(_FULL_SECONDS)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._enqueue(_Write(fn, future, loop))
        return await future

    def _has_room_for_more(self) -> bool:
        most: int = app_settings.APPEND_BACKLOG_BYTES
        return self._backlog < most

    def submit(self, fn: Callable[[], T]) -> "Future[T]":
        future: Future[T] = Future()
        self._enqueue(_Write(fn, future))
        return future

    def _enqueue(self, write: _Write) -> None:
        with self._lock:
            self._waiting.append(write)
            self._backlog += _size(write.fn)
            if self._busy < self._most:
                self._busy += 1
                self._together.submit(self._work)

    def _work(self) -> None:
        while True:
            with self._lock:
                writes, self._waiting = self._waiting[:_MOST_PER_COMMIT], self._waiting[_MOST_PER_COMMIT:]
                self._backlog -= sum(_size(write.fn) for write in writes)
                self._has_room.notify_all()
                if not writes:
                    self._busy -= 1
                    return
            try:
                results = self._commit(writes)
            except Exception as error:
                note_loss(error)
                # One of them is bad, or a row is locked by somebody slow: none of the others may suffer.
                with self._lock:
                    self._apart += len(writes)
                for write in writes:
                    if isinstance(write.fn, Append):
                        write.fn.may_repeat = True  # perhaps only the answer to the COMMIT was lost
                    self._alone.submit(self._write_apart, write)
            else:
                _settle_all(zip(writes, results, strict=True))

    def _write_apart(self, write: _Write) -> None:
        try:
            _write_alone(write)
        finally:
            with self._lock:
                self._apart -= 1
                self._has_room.notify_all()

    def _commit(self, writes: list[_Write]) -> list[Any]:
        results: list[Any] = []
        _limit_lock_waits()
        with atomic(), ledger.opened():
            appends = [write.fn for write in writes if isinstance(write.fn, Append)]
            appended = iter(append_all(appends) if appends else [])
            for write in writes:
                try:
                    results.append(next(appended) if isinstance(write.fn, Append) else write.fn())
                except LeaseLost as lost:
                    results.append(lost)
        return results


def _write_alone(write: _Write) -> None:
    """Try until it is decided. While the database is away we go on as long as the lease can be ours."""
    pause, until = _FIRST_PAUSE_SECONDS, time.monotonic() + app_settings.LEASE_SECONDS
    while True:
        try:
            _limit_lock_waits()
            with atomic(), ledger.opened():
                result = write.fn()
        except (OperationalError, InterfaceError) as error:
            note_loss(error)
            connection.close()
            if time.monotonic() + pause > until:
                return _settle_all([(write, error)])
            logger.warning("The database did not take a write; trying again in %.2f s: %s", pause, error)
            time.sleep(pause)
            pause = min(pause * 2, 2.0)
        except Exception as error:
            if isinstance(error, DatabaseError):
                connection.close()
            return _settle_all([(write, error)])
        else:
            return _settle_all([(write, result)])


def _size(fn: Callable[[], Any]) -> int:
    return fn.size if isinstance(fn, Append) else 0


_of_thread: Final = threading.local()  # .limited: the connection whose lock waits are limited


def _limit_lock_waits() -> None:
    """Once for each new connection of a writing thread, which is used for nothing else."""
    if connection.vendor != "postgresql":
        return
    connection.ensure_connection()
    if getattr(_of_thread, "limited", None) is not connection.connection:
        with connection.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = '{_LOCK_TIMEOUT}'")
        _of_thread.limited = connection.connection


def _settle_all(written: Iterable[tuple[_Write, Any]]) -> None:
    """Tell who waits. An event loop is woken once for all that wait on it: a wake-up costs more than the rest."""
    by_loop: defaultdict[asyncio.AbstractEventLoop, list[tuple[Any, Any]]] = defaultdict(list)
    for write, result in written:
        if write.loop is not None:
            by_loop[write.loop].append((write.future, result))
        elif isinstance(write.future, Future) and write.future.set_running_or_notify_cancel():
            _settle([(write.future, result)])
    for loop, settled in by_loop.items():
        with suppress(RuntimeError):  # the loop is closed: nobody waits there any more
            loop.call_soon_threadsafe(_settle, settled)


def _settle(settled: list[tuple[Any, Any]]) -> None:
    for future, result in settled:
        if future.cancelled():
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)


@cache
def process_writer() -> GroupWriter:
    """The one writer of this process: its worker, its views and its pipes share commits."""
    writer = GroupWriter()
    atexit.register(writer.flush)
    return writer


class InlineWriter:
    """Writes in the thread that asks, each in its own transaction: for tests, which see only their own connection."""

    def write(self, fn: Callable[[], T]) -> T:
        with atomic(), ledger.opened():
            return fn()

    async def awrite(self, fn: Callable[[], T]) -> T:
        return await sync_to_async(self.write)(fn)
