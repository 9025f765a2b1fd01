"""Input streams, as the running task takes from them.

`Stream.consumed` says how many records were taken, by whatever attempt. It is advanced with the attempt's lease before
a record is given to the task: so a record is given at most once, and a later attempt goes on behind it.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Final

from django.db import DatabaseError
from django.db.models import F

from realtime_runs.database import read
from realtime_runs.engine.context import ActiveRun, Lease
from realtime_runs.engine.pausing import Listen, apaused, aread, await_until, paused, wait_until
from realtime_runs.exceptions import LeaseLost, WaitTimeout
from realtime_runs.live import bell
from realtime_runs.live.chunks import Appended
from realtime_runs.live.tails import TailListener
from realtime_runs.models import Run, Stream, StreamChunk, StreamName
from realtime_runs.statuses import FINAL

_TURN_SECONDS: Final = 0.005


def look(name: StreamName) -> bytes | None:
    """The record that would be taken next, if there is one."""
    row = Stream.objects.filter(run=name.run_id, kind=name.kind, key=name.key, next_index__gt=F("consumed")).first()
    return None if row is None else _data(row, row.consumed)


def has_more(name: StreamName) -> bool | None:
    """Whether there is a record to take. None: not yet; False: there will be none, because the run is over."""
    if look(name) is not None:
        return True
    return False if Run.objects.filter(pk=name.run_id, status__in=FINAL).exists() else None


def _data(row: Stream, index: int) -> bytes:
    return bytes(StreamChunk.objects.values_list("data", flat=True).get(stream=row.pk, index=index))


class Take:
    """Takes the next record for an attempt, and gives its bytes; None when there is none. Raises LeaseLost.

    Only the process that has the lease takes, and there one at a time: so when a commit is repeated whose answer was
    lost, the stream tells whether it went through.
    """

    def __init__(self, lease: Lease, name: StreamName) -> None:
        self.name = name
        self._lease = lease
        self._index: int | None = None

    def __call__(self) -> bytes | None:
        row = self._lock()
        if row is None or (self._index is None and row.consumed >= row.next_index):
            return None
        if self._index is None:
            self._index = row.consumed
        Stream.objects.filter(pk=row.pk, consumed=self._index).update(consumed=self._index + 1)
        return _data(row, self._index)

    def give_back(self) -> None:
        """Who asked for it does not wait any more."""
        row = self._lock()
        if row is not None and self._index is not None:
            Stream.objects.filter(pk=row.pk, consumed=self._index + 1).update(consumed=self._index)
            bell.announce_chunks([Appended(self.name, row.next_index)])  # wakes who waits too

    def _lock(self) -> Stream | None:
        """The lock on the run's row is enough: whoever appends shares it, and whoever takes does so through here."""
        lease, name = self._lease, self.name
        run = Run.objects.leased(lease.run_id, lease.attempt, lease.token).select_for_update(no_key=True)
        if run.values_list("pk", flat=True).first() is None:
            raise LeaseLost(lease.run_id, lease.attempt)
        return Stream.objects.filter(run=name.run_id, kind=name.kind, key=name.key).first()

    def has_turn(self) -> bool:
        return _taking.setdefault(self.name, self) is self

    def end_turn(self) -> None:
        if _taking.get(self.name) is self:
            del _taking[self.name]


_taking: Final[dict[StreamName, Take]] = {}


def take(active: ActiveRun, name: StreamName) -> bytes | None:
    taking = Take(active.lease, name)
    while not taking.has_turn():
        time.sleep(_TURN_SECONDS)
    try:
        return active.writer.write(taking)
    finally:
        taking.end_turn()


async def atake(active: ActiveRun, name: StreamName) -> bytes | None:
    """When this is cancelled, the record stays where it was."""
    taking = Take(active.lease, name)
    while not taking.has_turn():
        await asyncio.sleep(_TURN_SECONDS)
    try:
        writing = asyncio.ensure_future(active.writer.awrite(taking))
        try:
            return await asyncio.shield(writing)
        except asyncio.CancelledError:
            with suppress(LeaseLost, DatabaseError):
                if await writing is not None:
                    await active.writer.awrite(taking.give_back)
            raise
    finally:
        taking.end_turn()


def next_data(active: ActiveRun, name: StreamName, until: float, *, pauses: bool) -> bytes:
    """Take the next record, once there is one; with `pauses` the run is WAITING meanwhile.

    Raises WaitTimeout at `until` (a time of `time.monotonic`), RunStopped.
    """
    while True:
        found = read(look, name)
        if found is None:
            with paused(active) if pauses else nullcontext():
                found = wait_until(active, lambda: look(name), listen_to(name), until)
        if found is None:
            raise _time_out(name)
        if (data := take(active, name)) is not None:  # else somebody else of this run was faster
            return data


async def anext_data(active: ActiveRun, name: StreamName, until: float, *, pauses: bool) -> bytes:
    while True:
        found = await aread(lambda: look(name))
        if found is None:
            async with apaused(active) if pauses else nullcontext():
                found = await await_until(active, lambda: look(name), listen_to(name), until)
        if found is None:
            raise _time_out(name)
        if (data := await atake(active, name)) is not None:
            return data


def _time_out(name: StreamName) -> WaitTimeout:
    return WaitTimeout(f"Input {name.key!r} of run {name.run_id}")


def listen_to(name: StreamName) -> Listen:
    def listen(wake: Callable[[], None], loop: asyncio.AbstractEventLoop | None) -> TailListener:
        return TailListener(name, wake, loop)

    return listen
