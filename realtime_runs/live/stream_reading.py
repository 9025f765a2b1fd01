"""The reads of stream readers. Each is short and bounded; none holds a connection afterwards."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from realtime_runs.exceptions import RunNotFound
from realtime_runs.live.chunks import Appended, Chunk, End
from realtime_runs.models import Run, Stream, StreamChunk, StreamName
from realtime_runs.statuses import FINAL

_MOST_MISSING: Final = 2000  # chunks read for a tail; one that is further behind begins anew near the end
_NEWEST: Final = 500

_FIRST_GUESS: Final = 50  # of the newest chunks are read; their sizes say how many more may be wanted
_MOST_NEWEST: Final = 20_000
_COLUMNS: Final = ("index", "data", "attempt", "created_at", "record_id", "producer", "sequence")
_ROW: Final = ("pk", "next_index", "first_index", "end_reason", "restart_index")


@dataclass(frozen=True, slots=True)
class Page:
    """Chunks from the wanted index on, and how the stream was when they were read."""

    chunks: list[Chunk] = field(default_factory=list)
    next_index: int = 0
    first_index: int = 0
    end_reason: str = ""
    restart_index: int = 0


def read_page(name: StreamName, index: int | None, limit: int) -> Page:
    """Up to `limit` chunks; with `index` None only how the stream is. Raises RunNotFound.

    A stream that nobody has written is open and empty until its run is final.
    """
    row = _row(name)
    if row is None:
        status = Run.objects.filter(pk=name.run_id).values_list("status", flat=True).first()
        if status is None:
            raise RunNotFound(name.run_id)
        if status not in FINAL:
            return Page()
        row = _row(name)  # it may have begun and ended between the two reads
        if row is None:
            return Page(end_reason=status.lower())
    pk, next_index, first_index, end_reason, restart_index = row
    chunks = [] if index is None else _chunks(pk, index, limit)
    if chunks:
        next_index = max(next_index, chunks[-1].index + 1)
    if index is not None and index < next_index and (not chunks or chunks[0].index > index):
        first_index = max(first_index, chunks[0].index if chunks else next_index)  # removed between the two reads
    return Page(chunks, next_index, first_index, end_reason, restart_index)


def read_newest(name: StreamName, most_bytes: int) -> Page:
    """The newest chunks, together not much more than `most_bytes`, and how the stream is. Raises RunNotFound.

    Begins with the newest attempt where that began the stream anew.
    """
    page = read_page(name, None, 0)
    stored = StreamChunk.objects.filter(
        stream__run=name.run_id,
        stream__kind=name.kind,
        stream__key=name.key,
        index__gte=page.restart_index,
        index__lt=page.next_index,
    )
    rows = [*stored.order_by("-index").values_list(*_COLUMNS)[:_FIRST_GUESS]]
    size = sum(len(row[1]) for row in rows)
    if rows and size < most_bytes:
        more = min(_MOST_NEWEST, (most_bytes - size) * len(rows) // max(size, 1))
        rows += stored.filter(index__lt=rows[-1][0]).order_by("-index").values_list(*_COLUMNS)[:more]
    return replace(page, chunks=[_chunk(row) for row in reversed(rows)])


def read_missing(tails: Iterable[tuple[StreamName, int | None]]) -> list[tuple[Appended, bool]]:
    """What these streams have from an index on (None: wherever). True: it does not begin there, but near the end."""
    found = []
    for name, wanted in tails:
        row = _row(name)
        if row is None:
            continue
        pk, next_index, _, end_reason, restart_index = row
        is_far = wanted is None or next_index - wanted > _MOST_MISSING
        first = max(0, next_index - _NEWEST) if wanted is None or is_far else wanted
        chunks = _chunks(pk, first, _MOST_MISSING)
        first = chunks[0].index if chunks else max(first, next_index)
        jumps = first != wanted  # also where some were removed
        # A closed stream is complete only if its end was read before its chunks, as here.
        end = End(end_reason) if end_reason else None
        found.append((Appended(name, first, chunks, end, restart_index), jumps))
    return found


def read_ends(run_ids: Sequence[str]) -> dict[StreamName, tuple[int, str]]:
    """For every stream of these runs how many chunks it has, and why it is closed, or an empty text."""
    rows = Stream.objects.filter(run__in=run_ids).values_list("run", "kind", "key", "next_index", "end_reason")
    return {StreamName(run_id, kind, key): (next_index, reason) for run_id, kind, key, next_index, reason in rows}


def _row(name: StreamName) -> tuple[Any, ...] | None:
    return Stream.objects.filter(run=name.run_id, kind=name.kind, key=name.key).values_list(*_ROW).first()


def _chunks(stream_pk: int, index: int, limit: int) -> list[Chunk]:
    rows = StreamChunk.objects.filter(stream=stream_pk, index__gte=index).order_by("index")
    return [_chunk(row) for row in rows.values_list(*_COLUMNS)[:limit]]


def _chunk(row: tuple[Any, ...]) -> Chunk:
    number, data, attempt, at, record_id, producer, sequence = row
    return Chunk(number, bytes(data), attempt, at, record_id or f"{producer}-{sequence}")
