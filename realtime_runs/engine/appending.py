"""Putting chunks into streams.

The index of a chunk is given out under the row lock of its stream, in the transaction that inserts it; a lock on the
run's row keeps off whatever would end the run or take its lease meanwhile. So "is it open", "is it ours" and "which
index" are decided together with the insert, and closing a stream cannot overtake what was accepted before.

Locks are taken in one order everywhere: runs by id, then streams by id.
"""

import itertools
import os
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from django.db import connection
from django.db.models import Max

from realtime_runs.engine import stream_rows
from realtime_runs.engine.context import Lease
from realtime_runs.engine.stream_rows import StreamRow
from realtime_runs.exceptions import LeaseLost, RunNotFound, StreamClosed
from realtime_runs.live import bell
from realtime_runs.live.chunks import Appended, Chunk, End
from realtime_runs.models import FromNow, Run, StreamChunk, StreamName, database_now
from realtime_runs.models.bulk import insert_many
from realtime_runs.models.stream import APPEND, RESTART
from realtime_runs.statuses import FINAL
from realtime_runs.turns import atomic

_CHUNK_FIELDS: Final = ("stream", "index", "data", "record_id", "producer", "sequence", "attempt", "created_at")


class Producer:
    """Numbers what this process writes, so that a commit whose answer got lost can be repeated without doubles."""

    def __init__(self) -> None:
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self.id = secrets.token_hex(8)
        self._sequence = itertools.count()

    def next_sequences(self, count: int) -> list[int]:
        return [next(self._sequence) for _ in range(count)]


_own: Final = Producer()


@dataclass(slots=True, eq=False)
class Append:
    """Chunks for one stream, stored together and in this order. Calling it stores them alone.

    `chunks` are encoded; without any, and without an end, the stream is only made, if it is not there. `lease`: of the
    attempt that writes, whatever run the stream belongs to; None from outside.
    `producer` and `sequences` are the caller's, to repeat a write without doubles; by default they are ours.
    """

    name: StreamName
    chunks: list[bytes]
    lease: Lease | None = None
    on_retry: str = APPEND
    producer: str = ""
    sequences: list[int] = field(default_factory=list)
    record_id: str = ""
    closes: End | None = None  # and close the stream behind them
    may_repeat: bool = False  # some may be stored already

    def __post_init__(self) -> None:
        if self.producer or self.record_id:
            self.may_repeat = True
        if not self.producer:
            self.producer, self.sequences = _own.id, _own.next_sequences(len(self.chunks))

    @property
    def attempt(self) -> int:
        """Of the stream's own run; 0: from outside."""
        return self.lease.attempt if self.lease and self.lease.run_id == self.name.run_id else 0

    @property
    def size(self) -> int:
        return sum(map(len, self.chunks))

    def __call__(self) -> list[int]:
        """Indexes of the chunks. Raises StreamClosed, RunNotFound or LeaseLost."""
        (result,) = append_all([self])
        if isinstance(result, Exception):
            raise result
        return result


@atomic()
def append_all(appends: Sequence[Append]) -> list[list[int] | Exception]:
    """Store them in order; for each the indexes of its chunks, or why it was refused (then none of it was stored)."""
    runs, now = _lock_runs(appends)
    writable = [append for append in appends if _refusal(append, runs) is None]
    streams = stream_rows.lock({append.name: append.on_retry for append in writable}, now)
    stored = _stored_before([append for append in appends if append.may_repeat], streams)
    rows: list[tuple[Any, ...]] = []
    rings: dict[StreamName, Appended] = {}
    results: list[list[int] | Exception] = []
    for append in appends:
        refusal = _refusal(append, runs) or _closed(append, streams[append.name])
        known = stored.get(id(append), {})
        # All of it; to close what is closed is nothing to store either. (A stream that is only made must be open.)
        is_stored = len(known) == len(append.chunks) and bool(known or append.closes)
        if refusal and not (is_stored and isinstance(refusal, StreamClosed)):
            results.append(refusal)
            continue
        results.append(_place(append, streams[append.name] if not refusal else None, known, rows, rings, now))
    insert_many(StreamChunk, _CHUNK_FIELDS, rows)
    stream_rows.save([streams[name] for name in rings])
    bell.announce_chunks(list(rings.values()))
    return results


# -- what an append may do --------------------------------------------------------------------------------------------

_RunState = tuple[str, int, str]  # status, attempt, lease token


def _lock_runs(appends: Sequence[Append]) -> tuple[dict[str, _RunState], datetime]:
    """The runs, locked, and the database's time."""
    ids = {append.name.run_id for append in appends} | {append.lease.run_id for append in appends if append.lease}
    columns = ("pk", "status", "attempt", "lease_token")
    rows = Run.objects.filter(pk__in=ids).order_by("pk").values_list(*columns, FromNow())
    if connection.vendor == "postgresql":
        # A first chunk changes the run's row: whoever may write it takes the whole lock at once, because two that share
        # one could not both have more.
        is_new = not stream_rows.are_known(append.name for append in appends)
        sql, params = rows.query.sql_with_params()
        with connection.cursor() as cursor:
            cursor.execute(sql + (" FOR NO KEY UPDATE" if is_new else " FOR SHARE"), params)
            found: Iterable[Any] = cursor.fetchall()
    else:
        found = rows
    found = list(found)
    now = found[0][-1] if found else database_now()
    return {pk: (status, attempt, token) for pk, status, attempt, token, _ in found}, now


def _refusal(append: Append, runs: dict[str, _RunState]) -> Exception | None:
    """Why this append may not write, as far as runs decide it."""
    target = runs.get(append.name.run_id)
    if target is None:
        return RunNotFound(append.name.run_id)
    if append.lease and runs.get(append.lease.run_id, ("", 0, ""))[1:] != (append.lease.attempt, append.lease.token):
        return LeaseLost(append.lease.run_id, append.lease.attempt)
    if target[0] in FINAL:
        return StreamClosed(append.name.run_id, append.name.key, f"run {target[0]}")
    return None


def _closed(append: Append, stream: StreamRow) -> Exception | None:
    if stream.closed_at is None:
        return None
    if append.attempt > stream.closed_by > 0:
        # What an earlier attempt has closed, because its source failed, say, the new one goes on with.
        stream.closed_at, stream.closed_by, stream.end_reason = None, 0, ""
        return None
    return StreamClosed(append.name.run_id, append.name.key, stream.end_reason)


# -- chunks -----------------------------------------------------------------------------------------------------------


def _stored_before(appends: Sequence[Append], streams: dict[StreamName, StreamRow]) -> dict[int, dict[int, int]]:
    """For each append, by id(): which of its chunks (their place) are stored already, and at which index."""
    found: dict[int, dict[int, int]] = {}
    for append in appends:
        name = append.name
        if name in streams:
            chunks = StreamChunk.objects.filter(stream=streams[name].pk)
        else:
            chunks = StreamChunk.objects.filter(stream__run=name.run_id, stream__kind=name.kind, stream__key=name.key)
        if append.record_id:
            index = chunks.filter(record_id=append.record_id).values_list("index", flat=True).first()
            if index is not None:
                found[id(append)] = {0: index}
            continue
        indexes = dict(
            chunks.filter(producer=append.producer, sequence__in=append.sequences).values_list("sequence", "index")
        )
        found[id(append)] = {
            place: indexes[sequence] for place, sequence in enumerate(append.sequences) if sequence in indexes
        }
    return found


def _place(
    append: Append,
    stream: StreamRow | None,
    known: dict[int, int],
    rows: list[tuple[Any, ...]],
    rings: dict[StreamName, Appended],
    now: datetime,
) -> list[int]:
    """Give indexes to the chunks that are not known yet."""
    if stream is None:  # closed meanwhile, but all of it was stored before
        return [known[place] for place in range(len(append.chunks))]
    attempt = append.attempt
    if attempt > stream.attempt:
        stream.attempt = attempt
        if stream.on_retry == RESTART:
            stream.restart_index = stream.next_index
    ring = rings.setdefault(append.name, Appended(append.name, stream.next_index, restart_index=stream.restart_index))
    ring.restart_index = stream.restart_index
    indexes = []
    # The same chunk twice in one group fails on its constraint; then each is written alone, and the second is found.
    for place, (data, sequence) in enumerate(zip(append.chunks, append.sequences, strict=True)):
        if place in known:
            indexes.append(known[place])
            continue
        index = stream.next_index
        stream.next_index += 1
        indexes.append(index)
        rows.append((stream.pk, index, data, append.record_id, append.producer, sequence, attempt, now))
        ring.chunks.append(Chunk(index, data, attempt, now, append.record_id or f"{append.producer}-{sequence}"))
    if append.closes:
        stream.closed_at, stream.closed_by, stream.end_reason = now, append.attempt, append.closes.reason
        ring.end = append.closes
    return indexes


def last_sequence(name: StreamName, producer: str) -> int:
    """The highest sequence that is stored of a producer; -1 if none."""
    chunks = StreamChunk.objects.filter(
        stream__run=name.run_id, stream__kind=name.kind, stream__key=name.key, producer=producer
    )
    highest: int | None = chunks.aggregate(highest=Max("sequence"))["highest"]
    return -1 if highest is None else highest
