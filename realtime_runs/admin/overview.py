"""How the runs of the last hour went: what an operator wants to know first."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from django.core.exceptions import EmptyResultSet
from django.db import connections
from django.utils import timezone
from django.utils.formats import date_format

from realtime_runs.admin import bounded, svg, trouble
from realtime_runs.admin.filters import created_within
from realtime_runs.display.elapsed import seconds
from realtime_runs.models.run import RunQuerySet
from realtime_runs.statuses import FINAL, RunStatus

MOST_RUNS: Final = 50_000  # of the last hour, for the bars
MOST_DELAYS: Final = 5_000
HOUR: Final = timedelta(hours=1)
_MINUTE: Final = timedelta(minutes=1)
_MINUTES: Final = 60
_UNFINISHED: Final = (RunStatus.QUEUED, RunStatus.EXECUTING, RunStatus.WAITING, RunStatus.DELAYED)

# The kinds of the bars, from the bottom.
KINDS: Final = {
    "completed": {RunStatus.COMPLETED},
    "failed": FINAL - {RunStatus.COMPLETED, RunStatus.CANCELED},
    "canceled": {RunStatus.CANCELED},
    "executing": {RunStatus.EXECUTING, RunStatus.WAITING},
    "queued": {RunStatus.QUEUED, RunStatus.DELAYED},
}
_KIND_OF: Final = {status.value: kind for kind, statuses in KINDS.items() for status in statuses}

_counters: Final[bounded.Shared[dict[str, bounded.Count]]] = bounded.Shared(1)
_overviews: Final[bounded.Shared[dict[str, Any]]] = bounded.Shared(1)


def forget() -> None:
    """What was read a moment ago is not shared with the next who asks."""
    _counters.forget()
    _overviews.forget()


def counters(visible: RunQuerySet) -> dict[str, bounded.Count]:
    """How many are queued and executed now, and failed in the last hour; shared by all who see the same runs."""
    return _counters.get(
        bounded.identity(visible),
        lambda: {
            "queued": bounded.count(visible.filter(status=RunStatus.QUEUED)),
            "executing": bounded.count(visible.filter(status=RunStatus.EXECUTING)),
            "failed": bounded.count(visible.failed_since(timezone.now() - HOUR)),
        },
    )


def read(visible: RunQuerySet, site: str) -> dict[str, Any]:
    """The context of the page, shared for a second by all who see the same runs."""
    return _overviews.get((site, bounded.identity(visible)), lambda: _read(visible, site))


def _read(visible: RunQuerySet, site: str) -> dict[str, Any]:
    now = timezone.now()
    return {
        "now": now,
        "numbers": {status.lower(): bounded.count(visible.filter(status=status)) for status in _UNFINISHED},
        "failed": bounded.count(visible.failed_since(now - HOUR)),
        **_volume(visible, now),
        **_delays(visible, now),
        **trouble.read(visible, site, now),
    }


def _minutes(now: datetime) -> list[datetime]:
    """The beginnings of the last 60 minutes, oldest first."""
    this = now.replace(second=0, microsecond=0)
    return [this - _MINUTE * n for n in reversed(range(_MINUTES))]


def _time(minute: datetime) -> str:
    return date_format(timezone.localtime(minute), "H:i")


# -- how many ---------------------------------------------------------------------------------------------------------


def _volume(visible: RunQuerySet, now: datetime) -> dict[str, Any]:
    counts: dict[str, Counter[str]] = {}
    for minute, status, number in _by_minute(visible):
        counts.setdefault(minute, Counter())[_KIND_OF[status]] += number
    labels, stacks, names, table = [], [], [], []
    for at in _minutes(now):
        its = counts.get(f"{at:%Y-%m-%d %H:%M}", Counter())
        stack = [(kind, its[kind]) for kind in KINDS if its[kind]]
        labels.append(_time(at))
        stacks.append(stack)
        names.append(f"{_time(at)}: " + ", ".join(f"{number:,} {kind}" for kind, number in stack))
        table.append((_time(at), [its[kind] for kind in KINDS]))
    total = sum(sum(its.values()) for its in counts.values())
    return {
        "volume_picture": svg.draw_stacks(stacks, labels, names),
        "volume_table": [row for row in table if any(row[1])],
        "volume_total": f"{total:,}",
        "volume_is_cut": total >= MOST_RUNS,
        "volume_most": f"{MOST_RUNS:,}",
        "kinds": list(KINDS),
    }


def _by_minute(visible: RunQuerySet) -> list[tuple[str, str, int]]:
    """(minute in UTC, status, how many). The database counts: for so many rows Python would take a second."""
    newest = created_within(visible, HOUR).order_by("-pk").values_list("status", "created_at")[:MOST_RUNS]
    connection = connections[newest.db]
    try:
        sql, params = newest.query.get_compiler(connection=connection).as_sql()
    except EmptyResultSet:
        return []
    minute = (
        "SUBSTR(created_at, 1, 16)"
        if connection.vendor == "sqlite"
        else "TO_CHAR(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI')"
    )
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {minute}, status, COUNT(*) FROM ({sql}) AS newest GROUP BY 1, 2", params)  # noqa: S608
        return list(cursor.fetchall())


# -- how soon ---------------------------------------------------------------------------------------------------------


def _delays(visible: RunQuerySet, now: datetime) -> dict[str, Any]:
    started = created_within(visible, HOUR).filter(started_at__isnull=False, queued_at__isnull=False).order_by("-pk")
    rows: list[Any] = list(started.values_list("queued_at", "started_at")[:MOST_DELAYS])
    by_minute: dict[datetime, list[float]] = {}
    for queued_at, started_at in rows:
        delay = (started_at - queued_at).total_seconds()
        if delay >= 0:  # one that is tried again has been queued anew
            by_minute.setdefault(started_at.replace(second=0, microsecond=0), []).append(delay)
    minutes = _minutes(now)
    labels = [_time(at) for at in minutes]
    half = [_percentile(by_minute.get(at), 0.50) for at in minutes]
    most = [_percentile(by_minute.get(at), 0.95) for at in minutes]
    table = [(at, _words(a), _words(b)) for at, a, b in zip(labels, half, most, strict=True) if a is not None]
    names = [f"{at}: p50 {_words(a)}, p95 {_words(b)}" for at, a, b in zip(labels, half, most, strict=True)]
    return {
        "delay_picture": svg.draw_lines([("p95", most), ("p50", half)], labels, names, _words),
        "delay_table": table,
        "delay_is_cut": len(rows) >= MOST_DELAYS,
        "delay_most": f"{MOST_DELAYS:,}",
    }


def _percentile(values: Sequence[float] | None, share: float) -> float | None:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else None


def _words(value: float | None) -> str:
    return "" if value is None else seconds(value * 1000)
