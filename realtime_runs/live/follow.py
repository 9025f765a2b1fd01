"""The one read loop: join the hub, read the table, then wait for what changes.

State is a snapshot: of each run only the newest version matters, slow readers skip the ones between. The loop is
written twice, for `for` and for `async for`; everything that decides something is in `Follower` and `Feed`, once.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing
from typing import Generic

from realtime_runs.database import read, readers
from realtime_runs.live.closing import SIGNAL_SECONDS, Closable, Signal, refuse_on_event_loop, wait_for_bell
from realtime_runs.live.feeds import Feed
from realtime_runs.live.follower import Follower
from realtime_runs.live.hub import hub
from realtime_runs.live.snapshot import O, P, RealtimeRun
from realtime_runs.live.with_streams import Decoder, StreamSubscription


class Subscription(Closable, Generic[P, O]):
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
        super().__init__()
        self._feed = feed
        self._signal = signal
        self._convert = convert

    def with_streams(self, *streams: "str | Decoder") -> "StreamSubscription[P, O]":
        """The same with the chunks of the runs' streams among them: `RunUpdate`, `StreamChunk` and `StreamRestarted`.

        `streams`: keys, or defined streams, whose types their chunks then have; none: all streams, also those that
        begin later. Ends when the subscription ends and everything written was given.
        """
        return StreamSubscription(self._feed, streams, signal=self._signal, convert=self._convert)

    @property
    def _is_aborted(self) -> bool:
        return self._closed or (self._signal is not None and self._signal.is_set())

    def __iter__(self) -> Iterator[RealtimeRun[P, O]]:
        refuse_on_event_loop("A subscription")
        return self._iterate()

    def _iterate(self) -> Iterator[RealtimeRun[P, O]]:
        rung = threading.Event()
        follower = Follower(self._feed, rung.set)
        if not self._opens(follower):
            return
        joined = hub.join(follower)
        try:
            joined.result()
            runs = follower.accept(read(follower.begin))
            while True:
                for run in runs:
                    if self._is_aborted:
                        return
                    yield self._convert(run)
                if follower.is_over or self._is_aborted:
                    return
                runs = []
                if rung.wait(SIGNAL_SECONDS if self._signal else None):
                    rung.clear()
                    waiting, since = follower.take()
                    caught_up = [] if since is None else read(follower.catch_up, since)
                    runs = follower.accept([*caught_up, *waiting])
        finally:
            hub.leave(follower)

    async def __aiter__(self) -> AsyncIterator[RealtimeRun[P, O]]:
        async with aclosing(self.pages()) as pages:
            async for runs in pages:
                for run in runs:
                    if self._is_aborted:
                        return
                    yield self._convert(run)

    async def pages(self, *, pause: float = 0) -> AsyncGenerator[list[RealtimeRun], None]:
        """The runs as they come together: first the current state (perhaps none), then the newer versions.

        After a change it waits `pause` seconds for more of them.
        """
        rung = asyncio.Event()
        follower = Follower(self._feed, rung.set, asyncio.get_running_loop())
        if not self._opens(follower):
            return
        joined = hub.join(follower)
        try:
            await asyncio.wrap_future(joined)
            at_hand = hub.newest(self._feed.topic.name) if self._feed.is_resumed else None
            first = [at_hand] if at_hand else await readers.run(follower.begin)
            if self._feed.is_resumed and not at_hand:
                hub.note(first)  # for the next one
            runs = follower.accept(first)
            is_first = True
            while True:
                if (runs or is_first) and not self._is_aborted:
                    yield runs
                if follower.is_over or self._is_aborted:
                    return
                runs, is_first = [], False
                if await wait_for_bell(rung, self._signal):
                    if pause:
                        await asyncio.sleep(pause)
                    rung.clear()
                    waiting, since = follower.take()
                    caught_up = [] if since is None else await readers.run(follower.catch_up, since)
                    runs = follower.accept([*caught_up, *waiting])
        finally:
            hub.leave(follower)
