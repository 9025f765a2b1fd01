"""The one read loop: join the hub, read the table, then wait for what changes.

State is a snapshot: of each run only the newest version matters, slow readers skip the ones between. The loop is
written twice, for `for` and for `async for`; everything that decides something is in `Follower` and `Feed`, once.
"""

import asyncio
import threading
import weakref
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Final, Generic, Self

from django.core.exceptions import SynchronousOnlyOperation

from realtime_runs.database import read, readers
from realtime_runs.live.feeds import Feed, Seen
from realtime_runs.live.hub import hub
from realtime_runs.live.listeners import Listener
from realtime_runs.live.snapshot import O, P, RealtimeRun

Signal = asyncio.Event | threading.Event

_MOST_SEEN: Final = 10_000  # runs whose last version a reader of a feed remembers
_CATCH_UP_PAGE: Final = 500  # runs read at once by a reader that fell behind
_SIGNAL_SECONDS: Final = 0.1  # how often a signal is looked at that cannot wake this kind of loop


class Follower(Listener):
    """One reader of a feed: knows what it was given, and so what is new to it."""

    def __init__(self, feed: Feed, wake: Callable[[], None], loop: asyncio.AbstractEventLoop | None = None) -> None:
        super().__init__(feed.topic, wake, loop)
        self.feed = feed
        self.is_over = False
        self.is_closed = False
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

    def close(self) -> None:
        self.is_closed = True
        self.wake_from_anywhere()

    def wake_from_anywhere(self) -> None:
        if self.loop is None:
            self.wake()
        else:
            with suppress(RuntimeError):  # its loop is closed, so it is over anyway
                self.loop.call_soon_threadsafe(self.wake)


class Subscription(Generic[P, O]):
    """Snapshots of one or more runs, as they change: for `for`, `async for`, `with` and `async with`.

    The first items are the current state. Versions of a run only rise; versions may be skipped, the newest never is.
    Each loop over it is a reading of its own. Leaving the loop, `close()`, or setting `signal` (an `asyncio.Event` or a
    `threading.Event`) ends it and releases everything. A plain `for` where an event loop runs raises
    SynchronousOnlyOperation.
    """

    def __init__(
        self,
        feed: Feed,
        *,
        signal: Signal | None = None,
        convert: Callable[[RealtimeRun], RealtimeRun[P, O]],
    ) -> None:
        self._feed = feed
        self._signal = signal
        self._convert = convert
        # Weak: a reader that left its loop must not be kept alive by the subscription.
        self._followers: weakref.WeakSet[Follower] = weakref.WeakSet()
        self._closed = False

    def close(self) -> None:
        """End every loop over this subscription; may be called from any thread."""
        self._closed = True
        for follower in list(self._followers):
            follower.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _is_aborted(self, follower: Follower) -> bool:
        return follower.is_closed or (self._signal is not None and self._signal.is_set())

    def __iter__(self) -> Iterator[RealtimeRun[P, O]]:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._iterate()
        raise SynchronousOnlyOperation("A subscription blocks; use `async for` where an event loop runs.")

    def _iterate(self) -> Iterator[RealtimeRun[P, O]]:
        rung = threading.Event()
        follower = Follower(self._feed, rung.set)
        self._followers.add(follower)
        if self._closed:  # asked after the follower can be reached by `close`
            return
        joined = hub.join(follower)
        try:
            joined.result()
            runs = follower.accept(read(self._feed.first))
            while True:
                for run in runs:
                    if self._is_aborted(follower):
                        return
                    yield self._convert(run)
                if follower.is_over or self._is_aborted(follower):
                    return
                runs = []
                if rung.wait(_SIGNAL_SECONDS if self._signal else None):
                    rung.clear()
                    waiting, since = follower.take()
                    caught_up = [] if since is None else read(follower.catch_up, since)
                    runs = follower.accept([*caught_up, *waiting])
        finally:
            hub.leave(follower)

    async def __aiter__(self) -> AsyncIterator[RealtimeRun[P, O]]:
        rung = asyncio.Event()
        follower = Follower(self._feed, rung.set, asyncio.get_running_loop())
        self._followers.add(follower)
        if self._closed:
            return
        joined = hub.join(follower)
        try:
            await asyncio.wrap_future(joined)
            runs = follower.accept(await readers.run(self._feed.first))
            while True:
                for run in runs:
                    if self._is_aborted(follower):
                        return
                    yield self._convert(run)
                if follower.is_over or self._is_aborted(follower):
                    return
                runs = []
                if await _wait(rung, self._signal):
                    rung.clear()
                    waiting, since = follower.take()
                    caught_up = [] if since is None else await readers.run(follower.catch_up, since)
                    runs = follower.accept([*caught_up, *waiting])
        finally:
            hub.leave(follower)


async def _wait(rung: asyncio.Event, signal: Signal | None) -> bool:
    """Until the bell rang (True) or the signal may be set (False)."""
    if signal is None:
        return await rung.wait()
    if isinstance(signal, threading.Event):
        try:
            return await asyncio.wait_for(rung.wait(), _SIGNAL_SECONDS)
        except TimeoutError:
            return False
    waits = [asyncio.create_task(rung.wait()), asyncio.create_task(signal.wait())]
    try:
        ended, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()  # raises for a signal that belongs to another event loop
    finally:
        for task in waits:
            task.cancel()
    return rung.is_set()
