"""The reads of followers. Each is one short query; none holds a connection afterwards."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from django.db import connection
from django.db.models import Exists, OuterRef, Q

from realtime_runs.live.snapshot import RealtimeRun, snapshot
from realtime_runs.models import FromNow, Run, RunTag, WaitToken
from realtime_runs.models.wait_token import WaitTokenStatus

_PAGE: Final = 500  # ids in one IN list

# A change carries the time of its statement and becomes visible at its commit. So a feed that reads "changed since"
# must go back by the length of the longest transaction. PostgreSQL says when the oldest one began. SQLite cannot, but
# has one writer at a time, and others give up waiting for it after their busy timeout (20 s in our settings).
_SQLITE_OVERLAP: Final = timedelta(seconds=2)
_SQLITE_LONG_OVERLAP: Final = timedelta(seconds=60)


def read_runs(ids: Sequence[str]) -> list[RealtimeRun]:
    """The runs that exist among `ids`, in no order."""
    found: list[RealtimeRun] = []
    for start in range(0, len(ids), _PAGE):
        found.extend(map(snapshot, Run.objects.filter(pk__in=ids[start : start + _PAGE])))
    return found


def read_versions(ids: Sequence[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for start in range(0, len(ids), _PAGE):
        found.update(Run.objects.filter(pk__in=ids[start : start + _PAGE]).values_list("pk", "version"))
    return found


def read_settled(token_ids: Sequence[str]) -> list[str]:
    """Those of the wait tokens for which nobody needs to wait any more."""
    found: list[str] = []
    for start in range(0, len(token_ids), _PAGE):
        tokens = WaitToken.objects.filter(pk__in=token_ids[start : start + _PAGE])
        found.extend(tokens.exclude(status=WaitTokenStatus.WAITING).values_list("pk", flat=True))
    return found


def read_tagged(tags: Iterable[str], look_back: timedelta, limit: int) -> list[RealtimeRun]:
    """The newest `limit` runs that carry all tags and are not older than `look_back`, oldest first."""
    runs = Run.objects.tagged(tags).filter(created_at__gte=FromNow(-look_back)).order_by("-id")[:limit]
    return [snapshot(run) for run in reversed(runs)]


def read_batch(batch_id: str, changed_since: datetime | None = None) -> list[RealtimeRun]:
    """All runs of the batch, or those that changed at that time or later, in item order."""
    runs = Run.objects.filter(batch=batch_id)
    if changed_since is not None:
        runs = runs.filter(updated_at__gte=changed_since)
    return [snapshot(run) for run in runs.order_by("batch_index")]


def read_horizon(*, long: bool = False) -> datetime:
    """A time of the database's clock: everything that is not visible yet was, or will be, changed after it."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(
                "SELECT LEAST(CLOCK_TIMESTAMP(), MIN(xact_start))"
                " FROM pg_stat_activity WHERE datname = current_database()"
            )
            horizon: datetime = cursor.fetchone()[0]
            return horizon
        overlap = _SQLITE_LONG_OVERLAP if long else _SQLITE_OVERLAP
        cursor.execute(
            "SELECT STRFTIME('%%Y-%%m-%%dT%%H:%%M:%%f+00:00', 'NOW', %s)", [f"-{overlap.total_seconds()} seconds"]
        )
        return datetime.fromisoformat(cursor.fetchone()[0])


def read_changed(since: datetime, tags: Sequence[str], batches: Sequence[str]) -> dict[str, int]:
    """Id and version of the runs of these tags (any) or batches that changed since."""
    wanted = Q(batch__in=batches) | Exists(RunTag.objects.filter(run=OuterRef("pk"), tag__in=tags))
    return dict(Run.objects.filter(wanted, updated_at__gte=since).values_list("pk", "version"))


def read_tagged_since(since: datetime, tags: Iterable[str], limit: int) -> list[RealtimeRun]:
    """The first `limit` runs with all these tags that changed at that time or later, in the order of their changes."""
    runs = Run.objects.tagged(tags).filter(updated_at__gte=since).order_by("updated_at", "id")[:limit]
    return [snapshot(run) for run in runs]
