"""The newest chunks of a stream, kept once in a process for all its readers.

A reader that keeps up takes its chunks from here, without a query. One that fell behind, or begins earlier, pages from
the table. So no reader has a queue of its own, and one that never comes costs nothing.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final

from realtime_runs.live.chunks import Appended, Chunk
from realtime_runs.live.listeners import Listener
from realtime_runs.live.snapshot import RealtimeRun
from realtime_runs.live.topics import run_topic
from realtime_runs.models import StreamName

_MOST_CHUNKS: Final = 2000
_MOST_BYTES: Final = 1024 * 1024


class Tail:
    """Written on the live loop, read by any thread."""

    def __init__(self, name: StreamName) -> None:
        self.name = name
        self.end_reason = ""  # why there will be no chunk after `next_index`; empty while it is open
        self.restart_index = 0
        self.reader_count = 0  # only the hub counts
        self._lock = threading.Lock()
        self._chunks: deque[Chunk] = deque()
        self._bytes = 0
        self._next_index: int | None = None  # None: nothing is known yet
        self._stored = 0  # how many chunks there are at least, by what was heard

    @property
    def next_index(self) -> int | None:
        """The index after the last chunk that is here."""
        return self._next_index

    @property
    def stored(self) -> int:
        """How many chunks there are at least, by what was heard."""
        return self._stored

    @property
    def is_behind(self) -> bool:
        """Whether there are chunks in the table that are not here."""
        return self._stored > (self._next_index or 0)

    def heard(self, next_index: int) -> None:
        """There are so many chunks."""
        self._stored = max(self._stored, next_index)

    def extend(self, news: Appended) -> bool:
        """Take what follows on what is here. False when something is missing in between: then nothing was taken."""
        with self._lock:
            self._stored = max(self._stored, news.next_index)
            if self._next_index is not None and news.first > self._next_index:
                return False
            is_new = news.next_index > (self._next_index or 0)
            self.restart_index = max(self.restart_index, news.restart_index)
            self._add(news)
            if news.end is not None:
                self.end_reason = news.end.reason
            elif is_new:
                self.end_reason = ""  # a new attempt went on with it
            return True

    def jump(self, news: Appended) -> None:
        """Begin anew with these chunks, because too many are missing in between. Readers page over the gap."""
        with self._lock:
            self._chunks.clear()
            self._bytes = 0
            self._next_index = None
        self.extend(news)

    def _add(self, news: Appended) -> None:
        known = 0 if self._next_index is None else self._next_index - news.first
        for chunk in islice(news.chunks, max(known, 0), None):
            self._chunks.append(chunk)
            self._bytes += len(chunk.data)
        self._next_index = max(self._next_index or 0, news.next_index)
        while len(self._chunks) > _MOST_CHUNKS or (self._bytes > _MOST_BYTES and len(self._chunks) > 1):
            self._bytes -= len(self._chunks.popleft().data)

    def after(self, index: int) -> list[Chunk] | None:
        """The chunks from `index` on, perhaps none; None when they are not here, and the table has to be read."""
        with self._lock:
            if self._next_index is None:
                return [] if index >= self._stored else None
            if index >= self._next_index:
                return []
            if not self._chunks or index < self._chunks[0].index:
                return None
            return list(islice(self._chunks, index - self._chunks[0].index, None))


class TailListener(Listener):
    """A reader of a stream, as the hub knows it. It follows the topic of the run, which ends the stream too."""

    def __init__(
        self, name: StreamName, wake: Callable[[], None], loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        super().__init__(run_topic(name.run_id), wake, loop)
        self.name = name
        self.tail = Tail(name)  # replaced by the hub with that of all readers
        self.must_look = False
        self._version = 0

    def look_again(self) -> None:
        self.must_look = True

    def knows(self, run_id: str, version: int) -> bool:
        return self._version >= version

    def offer(self, runs: Iterable[RealtimeRun]) -> bool:
        """The run has changed. A reader cares when it is over: then a stream that nobody has written is over too."""
        over = [run for run in runs if run.is_completed]
        self._version = max([self._version, *(run.version for run in runs)])
        if over and not self.tail.end_reason and self.tail.next_index is None:
            self.tail.end_reason = over[-1].status.lower()
        return bool(over)
