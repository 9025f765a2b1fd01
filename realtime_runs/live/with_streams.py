"""Following runs together with their streams.

The loop is written twice, for `for` and for `async for`, and only carries: `Following` says what to read, and turns
what was read into items.
"""

import asyncio
import json
import logging
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Final, Generic, Protocol

from django.db import InterfaceError, OperationalError

from realtime_runs.database import read, readers
from realtime_runs.live.chunks import Chunk
from realtime_runs.live.closing import SIGNAL_SECONDS, Closable, Signal, refuse_on_event_loop, wait_for_bell
from realtime_runs.live.feeds import Feed
from realtime_runs.live.follower import Follower
from realtime_runs.live.hub import hub
from realtime_runs.live.items import RunUpdate, StreamChunk, StreamRestarted
from realtime_runs.live.snapshot import O, P, RealtimeRun
from realtime_runs.live.stream_follow import Cursor
from realtime_runs.live.stream_reading import read_page
from realtime_runs.live.tails import TailListener
from realtime_runs.models import StreamName
from realtime_runs.models.stream import OUTPUT

logger = logging.getLogger("realtime_runs.live")

_MOST_DONE: Final = 10_000  # streams of an endless feed of which we remember that they are over
_RETRY_SECONDS: Final = 0.2


class Decoder(Protocol):
    """A defined stream."""

    @property
    def key(self) -> str: ...

    def decode(self, data: bytes) -> Any: ...


Item = RunUpdate[P, O] | StreamChunk[P, O] | StreamRestarted
Read = tuple[Callable[[], Any], Callable[[Any], None]]  # what to call where it may block, and who takes the result


class Opened:
    """A stream that is being read."""

    def __init__(self, listener: TailListener) -> None:
        self.listener = listener
        self.cursor = Cursor(listener.name, 0)
        self.joined = hub.join(listener)
        self.page: list[Chunk | StreamRestarted] = []

    def take(self) -> list[Chunk | StreamRestarted]:
        """What can be given without reading first."""
        chunks, self.page = self.page, []
        if chunks or self.cursor.needs_page or not self.cursor.may_go_on(self.listener.tail):
            return chunks
        return self.cursor.take_tail(self.listener.tail)


class Following:
    """One loop: the runs, their open streams, and what is to be done next. No I/O but joining and leaving the hub."""

    def __init__(
        self,
        feed: Feed,
        streams: Sequence[str | Decoder],
        wake: Callable[[], None],
        loop: Any,
        convert: Callable[..., Any],
    ) -> None:
        self.follower = Follower(feed, wake, loop)
        self._wake = wake
        self._convert = convert
        self._decoders = {one if isinstance(one, str) else one.key: _decoder(one) for one in streams}
        self._runs: OrderedDict[str, RealtimeRun] = OrderedDict()  # newest snapshots of runs with open streams
        self._open: dict[StreamName, Opened] = {}
        self._done: OrderedDict[StreamName, None] = OrderedDict()
        self._new: list[RealtimeRun] = []
        self._has_begun = False
        self._joined = hub.join(self.follower)

    @property
    def is_over(self) -> bool:
        return self.follower.is_over and not self._open and not self._new

    def joins(self) -> "list[Future[None]]":
        """To be waited for before anything is read: what comes after them is heard."""
        return [self._joined, *(one.joined for one in self._open.values() if one.cursor.needs_page)]

    def reads(self) -> list[Read]:
        found: list[Read] = []
        if not self._has_begun:
            found.append((self.follower.feed.first, self._begin))
        else:
            waiting, since = self.follower.take()
            self._accept(waiting)
            if since is not None:
                found.append((partial(self.follower.catch_up, since), self._accept))
        for one in self._open.values():
            if one.cursor.needs_page:
                page = partial(read_page, one.cursor.name, one.cursor.wanted, one.cursor.limit)
                found.append((page, partial(self._take_page, one)))
        return found

    def items(self) -> Iterator[Item]:
        """What is new. Streams of new runs are opened, so there may be more to read at once: see `has_more`."""
        new, self._new = self._new, []
        for run in new:
            yield RunUpdate(self._convert(run))
            self._open_streams(run)
        for one in list(self._open.values()):
            for chunk in one.take():
                yield self._item(one.cursor.name, chunk)
            # What an attempt has closed, the next one may go on with.
            if one.cursor.is_over and self._runs[one.cursor.name.run_id].is_completed:
                self._close(one)

    @property
    def has_more(self) -> bool:
        return bool(self._new) or any(one.cursor.needs_page or one.page for one in self._open.values())

    def leave(self) -> None:
        hub.leave(self.follower)
        for one in self._open.values():
            hub.leave(one.listener)

    def _begin(self, runs: list[RealtimeRun]) -> None:
        self._has_begun = True
        self._accept(runs)

    def _accept(self, runs: list[RealtimeRun]) -> None:
        self._new += self.follower.accept(runs)

    def _take_page(self, one: Opened, page: Any) -> None:
        one.page = one.cursor.take_page(page)

    def _open_streams(self, run: RealtimeRun) -> None:
        names = [StreamName(run.id, OUTPUT, key) for key in run.realtime_streams]
        for name in names:
            if name not in self._open and name not in self._done and (not self._decoders or name.key in self._decoders):
                self._open[name] = Opened(TailListener(name, self._wake, self.follower.loop))
        if any(name in self._open for name in names):
            self._runs[run.id] = run

    def _close(self, one: Opened) -> None:
        name = one.cursor.name
        hub.leave(one.listener)
        del self._open[name]
        self._done[name] = None
        if len(self._done) > _MOST_DONE:
            self._done.popitem(last=False)
        if not any(other.run_id == name.run_id for other in self._open):
            self._runs.pop(name.run_id, None)

    def _item(self, name: StreamName, chunk: Chunk | StreamRestarted) -> Item:
        if isinstance(chunk, StreamRestarted):
            return chunk
        decode = self._decoders.get(name.key, json.loads)
        return StreamChunk(self._convert(self._runs[name.run_id]), name.key, chunk.index, decode(chunk.data))


def _decoder(stream: str | Decoder) -> Callable[[bytes], Any]:
    return json.loads if isinstance(stream, str) else stream.decode


class StreamSubscription(Closable, Generic[P, O]):
    """What `with_streams()` of a subscription gives: `RunUpdate`, `StreamChunk` and `StreamRestarted`, for `for` and
    `async for`. Of runs versions may be skipped; of each stream every chunk comes, once and in order.
    """

    def __init__(
        self, feed: Feed, streams: Sequence[str | Decoder], *, signal: Signal | None, convert: Callable[..., Any]
    ) -> None:
        super().__init__()
        self._feed = feed
        self._streams = streams
        self._signal = signal
        self._convert = convert

    def __iter__(self) -> Iterator[Item[P, O]]:
        refuse_on_event_loop("A subscription")
        return self._iterate()

    def _iterate(self) -> Iterator[Item[P, O]]:
        rung = threading.Event()
        following = Following(self._feed, self._streams, rung.set, None, self._convert)
        try:
            if not self._opens(following.follower):
                return
            while not following.is_over:
                rung.clear()  # before looking: what comes meanwhile rings again
                for joined in following.joins():
                    joined.result()
                for call, take in following.reads():
                    while True:
                        try:
                            take(read(call))
                            break
                        except (OperationalError, InterfaceError) as error:
                            _log_loss(error)
                            rung.wait(_RETRY_SECONDS)
                for item in following.items():
                    if self._is_aborted(following):
                        return
                    yield item
                if self._is_aborted(following):
                    return
                if not following.has_more and not following.is_over:
                    rung.wait(SIGNAL_SECONDS if self._signal else None)
        finally:
            following.leave()

    async def __aiter__(self) -> AsyncIterator[Item[P, O]]:
        rung = asyncio.Event()
        following = Following(self._feed, self._streams, rung.set, asyncio.get_running_loop(), self._convert)
        try:
            if not self._opens(following.follower):
                return
            while not following.is_over:
                rung.clear()
                for joined in following.joins():
                    await asyncio.wrap_future(joined)
                for call, take in following.reads():
                    while True:
                        try:
                            take(await readers.run(call))
                            break
                        except (OperationalError, InterfaceError) as error:
                            _log_loss(error)
                            await asyncio.sleep(_RETRY_SECONDS)
                for item in following.items():
                    if self._is_aborted(following):
                        return
                    yield item
                if self._is_aborted(following):
                    return
                if not following.has_more and not following.is_over:
                    await wait_for_bell(rung, self._signal)
        finally:
            following.leave()

    def _is_aborted(self, following: Following) -> bool:
        return following.follower.is_closed or (self._signal is not None and self._signal.is_set())


def _log_loss(error: Exception) -> None:
    logger.warning("A subscription cannot read the database; trying again: %s", error)
