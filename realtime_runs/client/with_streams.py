"""Following runs together with their streams: a subscription, a reader for each stream, and one queue for all."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import aclosing, nullcontext, suppress
from typing import Any, Final

from realtime_runs.client.following import Following, Signal
from realtime_runs.client.objects import Run
from realtime_runs.client.streams import RecordReader
from realtime_runs.client.subscriptions import Subscription
from realtime_runs.client.transport import Transport
from realtime_runs.live.items import RunUpdate, StreamChunk, StreamRecord

Item = RunUpdate | StreamChunk

_MOST_WAITING: Final = 100  # pages that the reader has not taken yet
_MOST_OPENED: Final = 10_000  # streams of an endless subscription of which it is remembered that they were read
_FINAL_AT_ONCE: Final = 10  # readers of runs that are over; those of others wait for what comes
_LOOK_SECONDS: Final = 1.0
_OF_ATTEMPTS: Final = ("closed", "error")  # reasons for which a stream ends before its run does


class StreamSubscription(Following[Item]):
    """`RunUpdate` and `StreamChunk`. Of runs versions may be skipped; of each stream every chunk comes, once and in
    order.
    """

    def __init__(
        self, subscription: Subscription, transport: Transport, keys: tuple[str, ...], signal: Signal | None
    ) -> None:
        super().__init__(signal)
        self._subscription = subscription
        self._transport = transport
        self._keys = keys

    async def _pages(self) -> AsyncGenerator[list[Item], None]:
        merging = Merging(self._subscription, self._transport, self._keys)
        working = asyncio.ensure_future(merging.work())
        try:
            async for items in merging.taken():
                yield items
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)


class Followed:
    """A run whose streams are read. `run`: as the reader has it."""

    def __init__(self) -> None:
        self.run: Run | None = None
        self.is_final = asyncio.Event()
        self.readers = 0


class Merging:
    """One loop over a subscription with streams."""

    def __init__(self, subscription: Subscription, transport: Transport, keys: tuple[str, ...]) -> None:
        self._subscription = subscription
        self._transport = transport
        self._keys = keys
        self._queue: asyncio.Queue[list[Any] | BaseException | None] = asyncio.Queue(_MOST_WAITING)
        self._followed: dict[str, Followed] = {}
        self._opened: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._slots = asyncio.Semaphore(_FINAL_AT_ONCE)

    async def work(self) -> None:
        """Fill the queue. The last thing in it is an error, or None."""
        end: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as group:
                await self._follow(group)
        except BaseExceptionGroup as errors:
            end = errors.exceptions[0]
        await self._queue.put(end)

    async def taken(self) -> AsyncGenerator[list[Item], None]:
        while True:
            page = await self._queue.get()
            if page is None:
                return
            if isinstance(page, BaseException):
                raise page
            yield [self._item(one) for one in page]

    def _item(self, one: Run | tuple[Followed, str, StreamRecord[Any]]) -> Item:
        if isinstance(one, tuple):
            followed, key, record = one
            assert followed.run is not None  # noqa: S101 the run came through the queue before its chunks
            return StreamChunk(followed.run, key, record.index, record.chunk)
        if followed_run := self._followed.get(one.id):
            followed_run.run = one
        return RunUpdate(one)

    async def _follow(self, group: asyncio.TaskGroup) -> None:
        async with aclosing(self._subscription._pages()) as pages:
            async for runs in pages:
                new = [opened for run in runs for opened in self._open_streams(run)]
                await self._queue.put([*runs])
                for run_id, key, followed in new:
                    group.create_task(self._read(run_id, key, followed))

    def _open_streams(self, run: Run) -> list[tuple[str, str, Followed]]:
        found = []
        for key in run.realtime_streams:
            if (run.id, key) not in self._opened and (not self._keys or key in self._keys):
                self._opened[run.id, key] = None
                followed = self._followed.setdefault(run.id, Followed())
                followed.readers += 1
                found.append((run.id, key, followed))
        while len(self._opened) > _MOST_OPENED:
            self._opened.popitem(last=False)
        if run.is_completed and (known := self._followed.get(run.id)):
            known.is_final.set()
        return found

    async def _read(self, run_id: str, key: str, followed: Followed) -> None:
        """Until the run is over: what an attempt has closed, the next one may go on with."""
        index, is_last = 0, False
        try:
            while not is_last:
                is_last = followed.is_final.is_set()
                reader = RecordReader(self._transport, run_id, key, _same, start_index=index)
                async with self._slots if is_last else nullcontext(), aclosing(reader._pages()) as pages:
                    async for records in pages:
                        index = records[-1].index + 1
                        await self._queue.put([(followed, key, record) for record in records])
                if reader.end_reason not in _OF_ATTEMPTS:
                    return
                with suppress(TimeoutError):
                    await asyncio.wait_for(followed.is_final.wait(), _LOOK_SECONDS)
        finally:
            followed.readers -= 1
            if not followed.readers:
                self._followed.pop(run_id, None)


def _same(record: StreamRecord[Any]) -> StreamRecord[Any]:
    return record
