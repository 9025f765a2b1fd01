"""Why runs fail, and what waits since when."""

import json
import re
from collections import Counter
from datetime import datetime, timedelta
from typing import Any, Final

from django.db.models import Max
from django.db.models.functions import Left

from realtime_runs.admin import bounded, columns
from realtime_runs.admin.filters import created_within
from realtime_runs.admin.run_page import listed, without_texts
from realtime_runs.display.text import showable
from realtime_runs.live.snapshot import snapshot
from realtime_runs.models import Run, RunEvent
from realtime_runs.models.run import RunQuerySet
from realtime_runs.statuses import RunStatus

MOST_FAILURES: Final = 1_000
_MOST_QUEUED: Final = 1_000
_SHOWN: Final = 8
_DAY: Final = timedelta(days=1)
_ERROR_START: Final = 400  # characters, in which are the name and the beginning of the message
_ERROR: Final = re.compile(r'\{"name": ("(?:[^"\\]|\\.)*")(?:, "message": "((?:[^"\\]|\\.)*))?')


def read(visible: RunQuerySet, site: str, now: datetime) -> dict[str, Any]:
    failures = _failures(visible, now - timedelta(hours=1))
    return {
        "errors": _top_errors(failures, site),
        "errors_are_cut": len(failures) >= MOST_FAILURES,
        "failures": failures[:_SHOWN],
        "queues": _queues(visible, site),
        "waiting": _oldest(visible, RunStatus.WAITING, site),
        "executing": _oldest(visible, RunStatus.EXECUTING, site),
    }


# -- why --------------------------------------------------------------------------------------------------------------


def _failures(visible: RunQuerySet, since: datetime) -> list[dict[str, Any]]:
    """Newest first. A run that expired has no error; one that was triggered more than a day ago is left out."""
    wanted = ("pk", "task", "status", "finished_at")
    failed = visible.failed_since(since).values_list(*wanted, Left("error", _ERROR_START))[:MOST_FAILURES]
    expired = created_within(visible, _DAY).filter(status=RunStatus.EXPIRED, finished_at__gte=since).order_by("-pk")
    rows = [*failed, *((*row, "") for row in expired.values_list(*wanted)[:MOST_FAILURES])]
    found = []
    for pk, task, status, at, error in sorted(rows, key=lambda row: row[3], reverse=True):
        name, message = _name_and_message(error) if error else (str(RunStatus(status).label), "Not started in time")
        found.append({"id": pk, "task": task, "name": name, "message": message, "at": at, "status": status})
    return found


def _name_and_message(error: str) -> tuple[str, str]:
    """Of the beginning of the JSON text that `RunError.to_json` writes."""
    match = _ERROR.match(error)
    if match is None:
        return "Error", ""
    name, message = match.groups(default="")
    return showable(json.loads(name), 100), showable(_unescaped(message), 160)


def _unescaped(text: str) -> str:
    """The inside of a JSON text that may be cut off, also within `\\u12ab`."""
    try:
        found: str = json.loads(f'"{text}"')
    except ValueError:
        found = json.loads(f'"{text.rpartition(chr(92))[0]}"')
    return found


def _top_errors(failures: list[dict[str, Any]], site: str) -> list[dict[str, Any]]:
    counts = Counter((failure["task"], failure["name"]) for failure in failures)
    newest = {(failure["task"], failure["name"]): failure for failure in reversed(failures)}
    most = max(counts.values(), default=1)
    return [
        {
            **newest[key],
            "count": f"{number:,}",
            "share": f"{100 * number / most:.0f}",
            "url": columns.list_url(site, task=key[0], status=newest[key]["status"]),
        }
        for key, number in counts.most_common(_SHOWN)
    ]


# -- what waits -------------------------------------------------------------------------------------------------------


def _queues(visible: RunQuerySet, site: str) -> list[dict[str, Any]]:
    """Tasks with runs that could be executed now, the one that waits for longest first."""
    ready = list(visible.ready().values_list("task", "queue", "queued_at", "run_at")[:_MOST_QUEUED])
    waits: dict[tuple[str, str], list[datetime]] = {}
    for task, queue, queued_at, run_at in ready:
        waits.setdefault((task, queue), []).append(max(queued_at or run_at, run_at))
    return [
        {
            "task": task,
            "queue": queue,
            "number": bounded.Count(len(times), len(ready) >= _MOST_QUEUED),
            "since": min(times),
            "ago": columns.ago(min(times)),
            "url": columns.list_url(site, task=task, status=RunStatus.QUEUED.value),
        }
        for (task, queue), times in sorted(waits.items(), key=lambda item: min(item[1]))[:_SHOWN]
    ]


def _oldest(visible: RunQuerySet, status: RunStatus, site: str) -> list[dict[str, Any]]:
    """Of those in this status the ones that were triggered first, and since when they are in it."""
    rows: list[Run] = list(without_texts(visible.filter(status=status)).order_by("pk")[:_SHOWN])
    events = RunEvent.objects.filter(run__in=[row.pk for row in rows], status=status).order_by()
    since = dict(events.values_list("run").annotate(Max("at"))) if rows else {}
    found = []
    for row in rows:
        at = since.get(row.pk) or row.started_at or row.created_at
        found.append({"link": columns.link(site, snapshot(listed(row))), "since": at, "ago": columns.ago(at)})
    return sorted(found, key=lambda its: its["since"])
