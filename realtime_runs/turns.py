"""Writing on SQLite, which has one writer at a time.

Whoever comes while another one writes is told to try again, and tries after pauses that grow to a tenth of a second: a
thread that writes all the time leaves the others next to no chance. So the threads of a process take turns, first come,
first served, and only other processes have to try again.
"""

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from django.db import connection, transaction

# A turn is fair, not necessary: SQLite keeps its own order. Who waits for somebody who waits for us goes on without.
_PATIENCE_SECONDS: Final = 1.0


class Turns:
    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._holder: int | None = None  # the thread whose turn it is
        self._waiting: deque[tuple[int, threading.Lock]] = deque()

    def take(self) -> bool:
        """Wait for our turn. False: we have it already, or it did not come in time."""
        us = threading.get_ident()
        with self._lock:
            if self._holder is None:
                self._holder = us
                return True
            if self._holder == us:
                return False
            gate = threading.Lock()
            gate.acquire()
            self._waiting.append((us, gate))
        if gate.acquire(timeout=_PATIENCE_SECONDS):
            return True
        with self._lock:
            if (us, gate) in self._waiting:
                self._waiting.remove((us, gate))
                return False
            return True  # it came in the last moment

    def end(self) -> None:
        with self._lock:
            if self._waiting:
                self._holder, gate = self._waiting.popleft()
                gate.release()
            else:
                self._holder = None


_turns: Final = Turns()


@contextmanager
def atomic() -> Iterator[None]:
    """`transaction.atomic()`, in turn where that helps. Also a decorator."""
    if connection.vendor != "sqlite" or connection.in_atomic_block:
        with transaction.atomic():
            yield
        return
    has_turn = _turns.take()
    try:
        with transaction.atomic():
            yield
    finally:
        if has_turn:
            _turns.end()
