"""The tails of all streams that are read in this process: filled by what is appended here, and from the table with what
others append. A part of the hub; all of it is on the live loop.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final

from realtime_runs.database import readers
from realtime_runs.live import stream_reading
from realtime_runs.live.chunks import Appended
from realtime_runs.live.tails import Tail, TailListener
from realtime_runs.models import StreamName

logger = logging.getLogger("realtime_runs.live")

_RETRY_SECONDS: Final = 1.0


class StreamHub:
    def __init__(self, wake_readers: Callable[[Collection[StreamName]], None]) -> None:
        self._wake_readers = wake_readers
        self._tails: dict[StreamName, Tail] = {}
        self._stale: set[StreamName] = set()  # streams whose tail lacks what is in the table
        self._has_stale = asyncio.Event()

    def reads_any(self, news: Sequence[Appended]) -> bool:
        """From any thread."""
        return bool(self._tails) and any(one.name in self._tails for one in news)

    def join(self, listener: TailListener) -> None:
        listener.tail = self._tails.setdefault(listener.name, listener.tail)
        listener.tail.reader_count += 1

    def leave(self, listener: TailListener) -> None:
        listener.tail.reader_count -= 1
        if not listener.tail.reader_count:
            self._tails.pop(listener.name, None)

    def hear(self, news: Sequence[Appended]) -> None:
        """What was appended in this process."""
        extended = set()
        for one in news:
            if tail := self._tails.get(one.name):
                if tail.extend(one):
                    extended.add(one.name)
                else:
                    self._mark([one.name])
        self._wake_readers(extended)

    def hear_counts(self, run_id: str, counts: dict[str, int]) -> None:
        """Other processes have appended: so many chunks there are now in the streams of a run, by kind/key."""
        for path, count in counts.items():
            tail = self._tails.get(StreamName(run_id, *path.split("/", 1)))
            if tail is not None:
                tail.heard(count)
                # A closing bell brings no chunk: of what looks complete only the table knows whether it is closed.
                if tail.is_behind or count == tail.next_index:
                    self._mark([tail.name])

    async def run(self) -> None:
        while True:
            await self._has_stale.wait()
            self._has_stale.clear()
            stale, self._stale = self._stale, set()
            try:
                await self._read(stale)
            except Exception:
                logger.warning("Could not read streams; trying again.", exc_info=True)
                await asyncio.sleep(_RETRY_SECONDS)
                self._mark(stale)

    async def look(self) -> None:
        """The backstop: what bells may have missed, found by one query."""
        if not self._tails:
            return
        ends = await readers.run(stream_reading.read_ends, list({name.run_id for name in self._tails}))
        for name, (count, end_reason) in ends.items():
            tail = self._tails.get(name)
            if tail is not None and (count > (tail.next_index or 0) or end_reason != tail.end_reason):
                tail.heard(count)
                self._mark([name])

    def _mark(self, names: Iterable[StreamName]) -> None:
        self._stale.update(names)
        if self._stale:
            self._has_stale.set()

    async def _read(self, names: Iterable[StreamName]) -> None:
        tails = {name: tail for name in names if (tail := self._tails.get(name))}
        wanted = [(name, tail.next_index) for name, tail in tails.items()]
        found = await readers.run(stream_reading.read_missing, wanted)
        for news, jumps in found:
            if jumps:
                tails[news.name].jump(news)
            else:
                tails[news.name].extend(news)
        self._wake_readers(tails)
        # More has come meanwhile. Not those that were not found: removed with their run.
        self._mark(news.name for news, _ in found if tails[news.name].is_behind and news.name in self._tails)
