"""The rows of streams: made where they are missing, locked, moved on, and closed with their run.

A transaction locks them by id, and behind the runs that it locks.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final

from django.db import connection, transaction
from django.db.models import Q

from realtime_runs.exceptions import RunNotFound
from realtime_runs.live import bell
from realtime_runs.live.chunks import Appended, End
from realtime_runs.models import FromNow, Run, Stream, StreamName
from realtime_runs.models.bulk import update_many
from realtime_runs.models.prepared import Prepared, places
from realtime_runs.models.stream import OUTPUT

_MOST_KNOWN: Final = 10_000
_known: "OrderedDict[StreamName, int]" = OrderedDict()  # ids of streams that are committed

_COLUMNS: Final = (
    *("pk", "run_id", "kind", "key", "next_index", "attempt", "on_retry", "restart_index", "closed_at"),
    *("closed_by", "end_reason"),
)
# Those that an append changes.
_MOVING_FIELDS: Final = ("next_index", "attempt", "restart_index", "closed_at", "closed_by", "end_reason")


@dataclass(slots=True)
class StreamRow:
    """A stream's row, locked. Not the model: there may be hundreds in a commit."""

    pk: int
    run_id: str
    kind: str
    key: str
    next_index: int
    attempt: int
    on_retry: str
    restart_index: int
    closed_at: datetime | None
    closed_by: int
    end_reason: str

    @property
    def name(self) -> StreamName:
        return StreamName(self.run_id, self.kind, self.key)


def are_known(names: Iterable[StreamName]) -> bool:
    """Whether `lock` has no row to make, as far as this process knows."""
    return all(name in _known for name in names)


def lock(names: dict[StreamName, str], now: datetime) -> dict[StreamName, StreamRow]:
    """The rows of these streams, locked; made where they are missing. `names`: what each does on a retry."""
    known = {name: pk for name in names if (pk := _known.get(name))}  # asked once: another thread may drop some
    new = [name for name in names if name not in known]
    if new:
        _create(new, names, now)
    wanted = Q(pk__in=known.values())
    for name in new:
        wanted |= Q(run=name.run_id, kind=name.kind, key=name.key)
    rows = Stream.objects.filter(wanted).order_by("pk").select_for_update().values_list(*_COLUMNS)
    found = {row.name: row for row in (StreamRow(*values) for values in rows)}
    for gone in [name for name in names if name not in found]:  # removed with its run, and the run came back
        _known.pop(gone, None)
        raise RunNotFound(gone.run_id)
    if new:
        ids = {name: found[name].pk for name in new}
        transaction.on_commit(lambda: _remember(ids))
    return found


def _create(names: Sequence[StreamName], on_retry: dict[StreamName, str], now: datetime) -> None:
    Stream.objects.bulk_create(
        [
            Stream(run_id=name.run_id, kind=name.kind, key=name.key, on_retry=on_retry[name], created_at=now)
            for name in sorted(names)
        ],
        ignore_conflicts=True,
    )
    # The first write of an output key is a change of the run that its followers see.
    keys: dict[str, list[str]] = {}
    for name in names:
        if name.kind == OUTPUT:
            keys.setdefault(name.run_id, []).append(name.key)
    for run_id, old in Run.objects.filter(pk__in=keys).order_by("pk").values_list("pk", "realtime_streams"):
        if added := [key for key in keys[run_id] if key not in old]:
            bell.announce(Run.objects.filter(pk=run_id).touch(realtime_streams=[*old, *added]))


def _remember(ids: dict[StreamName, int]) -> None:
    _known.update(ids)
    while len(_known) > _MOST_KNOWN:
        _known.popitem(last=False)


def save(streams: Sequence[StreamRow]) -> None:
    """Write back what an append has changed."""
    rows = [(row.pk, *(getattr(row, field) for field in _MOVING_FIELDS)) for row in streams]
    update_many(Stream, _MOVING_FIELDS, rows)


def close_streams_of(run_ids: Collection[str], reason: str) -> None:
    """Close all streams of runs that are final, in the transaction that ends them."""
    ids = [pk for (pk,) in _prepared_open(connection.vendor, len(run_ids)).rows(run=tuple(run_ids))]
    if ids:
        streams = Stream.objects.filter(pk__in=ids).order_by("pk")
        found = list(streams)
        streams.update(closed_at=FromNow(), end_reason=reason)
        bell.announce_chunks([Appended(stream.name, stream.next_index, end=End(reason)) for stream in found])


@lru_cache
def _prepared_open(vendor: str, count: int) -> Prepared:
    """Ids of the open streams of so many runs, locked."""
    streams = Stream.objects.filter(run__in=places("run", count), closed_at=None)
    return Prepared.read(streams.order_by("pk").select_for_update().values_list("pk"))
