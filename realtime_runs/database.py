"""Threads that talk to the database for code that must not block: event loops, the hub, the worker.

Not `sync_to_async`: that has one thread for everybody, and not a ThreadPoolExecutor either: it refuses work while the
interpreter shuts down, which is when a worker hands its runs back. A thread that has nothing to do ends and gives its
connection back, so that waiting never holds one.

When a server goes away, every connection to it is lost, and each thread would find out by an error of its own. So the
first error that looks like it makes all threads connect anew before their next job.
"""

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, ParamSpec, TypeVar

from django.db import Error, InterfaceError, OperationalError, connection, connections

P = ParamSpec("P")
T = TypeVar("T")
Job = tuple[Future[Any], Callable[..., Any], tuple[Any, ...], dict[str, Any]]

_losses = 0  # how often a connection may have been lost in this process
_of_thread: Final = threading.local()  # .losses: how many of these the thread's connections are younger than


def is_loss(error: BaseException) -> bool:
    """Whether this error can mean that the server has ended the connection."""
    # PostgreSQL's classes 08 (connection exception) and 57 (operator intervention); without a state it said nothing.
    state = getattr(error.__cause__, "sqlstate", None) or "08"
    return isinstance(error, OperationalError | InterfaceError) and state.startswith(("08", "57"))


def note_loss(error: BaseException) -> None:
    """Tell all threads, if it is one."""
    global _losses
    if is_loss(error):
        _losses += 1


def close_lost() -> None:
    """Close this thread's connections if they may have been lost since it last asked. Not in a transaction."""
    if getattr(_of_thread, "losses", 0) != _losses:
        _of_thread.losses = _losses
        connections.close_all()


class DatabaseThreads:
    """At most `threads` daemon threads, started when needed. One without work for `idle_seconds` gives its connection
    back and ends.

    The first `kept` ones stay, for work that must be possible while the interpreter shuts down, when no thread can be
    started. With `retries`, for jobs that only read, a job that fails on an old connection is done again on a new one.
    """

    def __init__(
        self, name: str, threads: int, *, kept: int = 0, idle_seconds: float = 1.0, retries: bool = False
    ) -> None:
        self._name = name
        self._most = threads
        self._kept = kept
        self._idle_seconds = idle_seconds
        self._retries = retries
        self._reset()
        os.register_at_fork(after_in_child=self._reset)  # threads do not survive a fork

    def _reset(self) -> None:
        self._jobs: deque[Job] = deque()
        self._has_jobs = threading.Condition()
        self._threads = 0
        self._idle = 0

    def submit(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Run `fn` in one of the threads; its database errors reach the caller and drop the connection."""
        future: Future[T] = Future()
        with self._has_jobs:
            self._jobs.append((future, fn, args, kwargs))
            # A job stays in the line until its thread has it, so every idle thread is good for one of them.
            if len(self._jobs) > self._idle and self._threads < self._most:
                self._start_thread()
            self._has_jobs.notify()
        return future

    def start(self) -> None:
        """Start the threads that stay."""
        with self._has_jobs:
            while self._threads < self._kept:
                self._start_thread()

    def _start_thread(self) -> None:
        self._threads += 1
        threading.Thread(target=self._work, name=f"{self._name}-db", daemon=True).start()

    async def run(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.wrap_future(self.submit(fn, *args, **kwargs))

    def _work(self) -> None:
        try:
            while (job := self._next_job()) is not None:
                self._do(job)
        finally:
            connections.close_all()

    def _next_job(self) -> Job | None:
        """The next job, or None when this thread is not needed any more."""
        patience: float | None = self._idle_seconds
        while True:
            with self._has_jobs:
                self._idle += 1
                has_come = self._has_jobs.wait_for(lambda: bool(self._jobs), patience)
                self._idle -= 1
                if has_come:
                    return self._jobs.popleft()
                if self._threads > self._kept:
                    self._threads -= 1
                    return None
            connections.close_all()
            patience = None

    def _do(self, job: Job, *, is_new: bool = True) -> None:
        future, fn, args, kwargs = job
        if is_new and not future.set_running_or_notify_cancel():
            return
        close_lost()
        is_old = self._retries and connection.connection is not None
        try:
            result = fn(*args, **kwargs)
        except BaseException as error:
            note_loss(error)
            if isinstance(error, Error):
                connections.close_all()
            if is_old and is_loss(error):
                self._do((future, fn, args, kwargs), is_new=False)
            else:
                future.set_exception(_raisable(error))
        else:
            future.set_result(result)


def _raisable(error: BaseException) -> BaseException:
    """What a coroutine that waits for the future can raise: as Python 3.12 does by itself, 3.11 would wait for ever."""
    if not isinstance(error, StopIteration):
        return error
    wrapped = RuntimeError("A function raised StopIteration.")
    wrapped.__cause__ = error
    return wrapped


# Idle for less than the backstop's pause, so that polling holds no connection between two looks.
readers: Final = DatabaseThreads("realtime-runs-read", threads=4, idle_seconds=0.25, retries=True)


def read(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `fn` on a connection of `readers`, unless we are in a transaction, which only our own connection sees."""
    if connection.in_atomic_block:
        return fn(*args, **kwargs)
    return readers.submit(fn, *args, **kwargs).result()
