"""How much a socket may be told: ids that it had, and messages in a time."""

import time
from bisect import bisect_right
from typing import Final

from realtime_runs.wire.closing import CloseCode, SocketClosed

_MESSAGES_PER_SECOND: Final = 10.0
_BURST: Final = 200  # messages: a hundred subscriptions, and a hundred within ten seconds beside them
_MOST_RANGES: Final = 10_000


class Flood:
    """Counts the messages of a client."""

    def __init__(self) -> None:
        self._left = float(_BURST)
        self._at = time.monotonic()

    def count(self) -> None:
        """One more. Raises SocketClosed (4429) when there were too many."""
        now = time.monotonic()
        self._left = min(_BURST, self._left + (now - self._at) * _MESSAGES_PER_SECOND)
        self._at = now
        if self._left < 1:
            raise SocketClosed(CloseCode.TOO_MANY)
        self._left -= 1


class UsedIds:
    """Which ids a socket had, kept as ranges: clients count, and a socket may live for days."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []  # behind the last one of each range

    def __contains__(self, id: int) -> bool:
        place = bisect_right(self._starts, id) - 1
        return place >= 0 and id < self._ends[place]

    def add(self, id: int) -> None:
        """Raises SocketClosed: 4400 when it was used before, 4429 when a client chose too many far from each other."""
        place = bisect_right(self._starts, id)
        if place and id < self._ends[place - 1]:
            raise SocketClosed(CloseCode.BAD_FRAME)
        joins_before = place > 0 and self._ends[place - 1] == id
        joins_after = place < len(self._starts) and self._starts[place] == id + 1
        if joins_before and joins_after:
            self._ends[place - 1] = self._ends[place]
            del self._starts[place], self._ends[place]
        elif joins_before:
            self._ends[place - 1] = id + 1
        elif joins_after:
            self._starts[place] = id
        else:
            if len(self._starts) >= _MOST_RANGES:
                raise SocketClosed(CloseCode.TOO_MANY)
            self._starts.insert(place, id)
            self._ends.insert(place, id + 1)
