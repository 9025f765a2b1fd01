"""Numbers that do not cost more when there is more to count."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from django.core.exceptions import EmptyResultSet
from django.db.models import QuerySet

T = TypeVar("T")

MOST: Final = 1000
_KEPT: Final = 64  # answers, each for those who see the same rows


@dataclass(frozen=True, slots=True)
class Count:
    """`is_more`: there are more than `number`."""

    number: int
    is_more: bool = False

    def __str__(self) -> str:
        return f"{self.number:,}{'+' if self.is_more else ''}"

    def __bool__(self) -> bool:
        return self.number > 0


def count(rows: "QuerySet[Any]", most: int = MOST) -> Count:
    """How many there are, as far as `most`."""
    # In order, PostgreSQL might look for them from the end of the primary key, which is the whole table for rare ones.
    found = rows.order_by().values("pk")[: most + 1].count()
    return Count(min(found, most), found > most)


def identity(rows: "QuerySet[Any]") -> Hashable:
    """The same for all who see the same rows."""
    try:
        return repr(rows.query.sql_with_params())
    except EmptyResultSet:
        return None


class Shared(Generic[T]):
    """An answer that all who ask for it within `seconds` share, in this process; one of them works it out."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._answers: OrderedDict[Hashable, tuple[float, T]] = OrderedDict()
        self._locks: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            with self._lock:
                found = self._answers.get(key)
            if found is not None and time.monotonic() - found[0] <= self._seconds:
                return found[1]
            answer = make()
            self._keep(key, answer)
        return answer

    def _keep(self, key: Hashable, answer: T) -> None:
        with self._lock:
            self._answers[key] = time.monotonic(), answer
            self._answers.move_to_end(key)
            while len(self._answers) > _KEPT:
                oldest, _ = self._answers.popitem(last=False)
                self._locks.pop(oldest, None)

    def forget(self) -> None:
        with self._lock:
            self._answers.clear()
