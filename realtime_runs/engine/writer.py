"""How a worker writes. Group commit: what waits while one transaction runs goes into the next one together.

One commit for a hundred small writes is what makes a worker fast on SQLite, where writers queue, and saves round trips
on PostgreSQL. A write is a function of `lifecycle` or `editing`; it may raise LeaseLost, and then it has written
nothing.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from asgiref.sync import sync_to_async
from django.db import DatabaseError, InterfaceError, OperationalError, connection, transaction

from realtime_runs.conf import app_settings
from realtime_runs.database import DatabaseThreads, note_loss
from realtime_runs.engine import ledger
from realtime_runs.exceptions import LeaseLost

logger = logging.getLogger("realtime_runs.engine")

T = TypeVar("T")

_MOST_PER_COMMIT: Final = 200
_FIRST_PAUSE_SECONDS: Final = 0.05
# A row that somebody else keeps locked must not keep other runs from writing. Shorter than PostgreSQL's
# deadlock_timeout (1 s), so that in a deadlock it is always us who give way and try again, and never a user's cancel.
_LOCK_TIMEOUT: Final = "300ms"


@dataclass(slots=True, eq=False)
class _Write:
    fn: Callable[[], Any]
    future: "Future[Any]"


class GroupWriter:
    """Joins the writes of all runs of a worker.

    Order is kept within a run, because a run waits for each of its writes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[_Write] = []
        self._is_busy = False
        # Threads that stay: a worker hands its runs back while the interpreter shuts down.
        self._together = DatabaseThreads("realtime-runs-write", threads=1, kept=1, idle_seconds=5)
        self._alone = DatabaseThreads("realtime-runs-write-alone", threads=4, kept=1)

    def start(self) -> None:
        self._together.start()
        self._alone.start()

    def write(self, fn: Callable[[], T]) -> T:
        if transaction.get_connection().in_atomic_block:
            # The caller's transaction may hold what ours would wait for; so this joins it, and shares its end.
            with ledger.opened():
                return fn()
        return self.submit(fn).result()

    def awrite(self, fn: Callable[[], T]) -> Awaitable[T]:
        return asyncio.wrap_future(self.submit(fn))

    def submit(self, fn: Callable[[], T]) -> "Future[T]":
        future: Future[T] = Future()
        with self._lock:
            self._waiting.append(_Write(fn, future))
            if not self._is_busy:
                self._is_busy = True
                self._together.submit(self._work)
        return future

    def _work(self) -> None:
        while True:
            with self._lock:
                writes, self._waiting = self._waiting[:_MOST_PER_COMMIT], self._waiting[_MOST_PER_COMMIT:]
                if not writes:
                    self._is_busy = False
                    return
            try:
                results = self._commit(writes)
            except Exception as error:
                note_loss(error)
                # One of them is bad, or a row is locked by somebody slow: none of the others may suffer.
                for write in writes:
                    self._alone.submit(_write_alone, write)
            else:
                for write, result in zip(writes, results, strict=True):
                    _settle(write, result)

    def _commit(self, writes: list[_Write]) -> list[Any]:
        results: list[Any] = []
        with transaction.atomic(), ledger.opened():
            _limit_lock_waits()
            for write in writes:
                try:
                    results.append(write.fn())
                except LeaseLost as lost:
                    results.append(lost)
        return results


def _write_alone(write: _Write) -> None:
    """Try until it is decided. While the database is away we go on as long as the lease can be ours."""
    pause, until = _FIRST_PAUSE_SECONDS, time.monotonic() + app_settings.LEASE_SECONDS
    while True:
        try:
            with transaction.atomic(), ledger.opened():
                _limit_lock_waits()
                result = write.fn()
        except (OperationalError, InterfaceError) as error:
            note_loss(error)
            connection.close()
            if time.monotonic() + pause > until:
                return _settle(write, error)
            logger.warning("The database did not take a write; trying again in %.2f s: %s", pause, error)
            time.sleep(pause)
            pause = min(pause * 2, 2.0)
        except Exception as error:
            if isinstance(error, DatabaseError):
                connection.close()
            return _settle(write, error)
        else:
            return _settle(write, result)


def _limit_lock_waits() -> None:
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")


def _settle(write: _Write, result: Any) -> None:
    if not write.future.set_running_or_notify_cancel():
        return
    if isinstance(result, Exception):
        write.future.set_exception(result)
    else:
        write.future.set_result(result)


class InlineWriter:
    """Writes in the thread that asks, each in its own transaction: for tests, which see only their own connection."""

    def write(self, fn: Callable[[], T]) -> T:
        with transaction.atomic(), ledger.opened():
            return fn()

    def awrite(self, fn: Callable[[], T]) -> Awaitable[T]:
        return sync_to_async(self.write)(fn)
