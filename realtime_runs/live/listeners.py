"""The mailbox between the hub and one reader: bounded, newest version wins, woken on its own loop or thread."""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from realtime_runs.live.snapshot import RealtimeRun
from realtime_runs.live.topics import Topic, token_topic

_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)
_MOST_WAITING: Final = 1000  # runs kept for a reader that does not come; beyond, it reads the table itself


class Listener:
    """What the hub knows of a reader. All methods may be called from any thread."""

    reads_rows = True

    def __init__(self, topic: Topic, wake: Callable[[], None], loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.topic = topic
        self.wake = wake
        self.loop = loop  # the hub wakes all listeners of a loop with one call; None: `wake` works from any thread
        self.is_closed = False
        self._lock = threading.Lock()
        self._waiting: OrderedDict[str, RealtimeRun] = OrderedDict()
        self._behind_since: datetime | None = None

    def close(self) -> None:
        """Tell the reader to stop."""
        self.is_closed = True
        self.wake_from_anywhere()

    def wake_from_anywhere(self) -> None:
        if self.loop is None:
            self.wake()
        else:
            with suppress(RuntimeError):  # its loop is closed, so it is over anyway
                self.loop.call_soon_threadsafe(self.wake)

    def wants(self, run: RealtimeRun) -> bool:
        return True

    def knows(self, run_id: str, version: int) -> bool:
        """Whether the reader has, or has waiting, this version or a later one. Called by the backstop."""
        with self._lock:
            waiting = self._waiting.get(run_id)
            return waiting is not None and waiting.version >= version

    def offer(self, runs: Iterable[RealtimeRun]) -> bool:
        """Leave snapshots for the reader; True if it has to be woken."""
        with self._lock:
            had = bool(self._waiting) or self._behind_since is not None
            for run in runs:
                if not self.wants(run):
                    continue
                old = self._waiting.get(run.id)
                if old is None or old.version < run.version:
                    self._waiting[run.id] = run
            if len(self._waiting) > _MOST_WAITING:
                oldest = min(run.updated_at for run in self._waiting.values())
                self._behind_since = min(self._behind_since or oldest, oldest)
                self._waiting.clear()
            return not had and (bool(self._waiting) or self._behind_since is not None)

    def fall_behind(self, since: datetime) -> None:
        """The reader must read the table from there."""
        with self._lock:
            self._behind_since = min(self._behind_since or since, since)

    def look_again(self) -> None:
        """What is followed seems to be gone; the reader finds out, and says so."""
        self.fall_behind(_LONG_AGO)

    def take(self) -> tuple[list[RealtimeRun], datetime | None]:
        """The waiting snapshots, and since when the reader must read the table itself (None: not at all)."""
        with self._lock:
            runs, since = list(self._waiting.values()), self._behind_since
            self._waiting.clear()
            self._behind_since = None
        return runs, since


class WorkListener(Listener):
    """Gets the ids of runs that may be ready or may have been canceled; nothing is read for it."""

    reads_rows = False

    def __init__(self, topic: Topic, hint: Callable[[list[str]], None]) -> None:
        super().__init__(topic, lambda: None)
        self.hint = hint


class TokenListener(WorkListener):
    """Is woken when a wait token may be settled; nothing is read for it either."""

    def __init__(self, token_id: str, wake: Callable[[], None], loop: asyncio.AbstractEventLoop | None = None) -> None:
        super().__init__(token_topic(token_id), lambda ids: self.wake_from_anywhere())
        self.wake = wake
        self.loop = loop
