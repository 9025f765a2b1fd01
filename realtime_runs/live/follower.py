"""What a reader of runs knows: the versions it was given, and so what is new to it."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final

from realtime_runs.live.feeds import Feed, Seen
from realtime_runs.live.listeners import Listener
from realtime_runs.live.snapshot import RealtimeRun

_MOST_SEEN: Final = 10_000  # runs whose last version a reader of a feed remembers
_CATCH_UP_PAGE: Final = 500  # runs read at once by a reader that fell behind


class Follower(Listener):
    """One reader of a feed: knows what it was given, and so what is new to it."""

    def __init__(self, feed: Feed, wake: Callable[[], None], loop: asyncio.AbstractEventLoop | None = None) -> None:
        super().__init__(feed.topic, wake, loop)
        self.feed = feed
        self.is_over = False
        self._seen: OrderedDict[str, Seen] = OrderedDict()

    def wants(self, run: RealtimeRun) -> bool:
        return self.feed.contains(run)

    def knows(self, run_id: str, version: int) -> bool:
        seen = self._seen.get(run_id)
        return (seen is not None and seen.version >= version) or super().knows(run_id, version)

    def accept(self, runs: Iterable[RealtimeRun]) -> list[RealtimeRun]:
        """Those of the runs that the reader has not seen in this or a later version."""
        new = []
        for run in runs:
            seen = self._seen.get(run.id)
            if seen is None or seen.version < run.version:
                self._seen[run.id] = Seen(run)
                self._seen.move_to_end(run.id)
                new.append(run)
        while len(self._seen) > _MOST_SEEN:
            self._seen.popitem(last=False)
        self.is_over = self.feed.is_over(self._seen)
        return new

    def begin(self) -> list[RealtimeRun]:
        """What the feed begins with. May raise RunNotFound or BatchNotFound."""
        if self.feed.is_endless and self.feed.changed_since is not None:
            return self.catch_up(self.feed.changed_since)
        return self.feed.first()

    def catch_up(self, since: datetime) -> list[RealtimeRun]:
        """What changed since, a page of it; the rest comes with the next wake-up."""
        if not self.feed.is_endless:
            return self.feed.first()
        limit = _CATCH_UP_PAGE
        runs = self.feed.since(since, limit)
        while len(runs) == limit and runs[-1].updated_at == since:  # one moment with more changes than a page holds
            limit *= 2
            runs = self.feed.since(since, limit)
        if len(runs) == limit:
            self.fall_behind(runs[-1].updated_at)
            self.wake_from_anywhere()
        return runs
