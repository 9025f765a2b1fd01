"""The cells of lists of runs, and the links that lead from one page to the other."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.contrib.admin.utils import quote
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html, format_html_join
from django.utils.http import urlencode
from django.utils.safestring import SafeString

from realtime_runs.display import elapsed, elements
from realtime_runs.display.text import showable
from realtime_runs.live.snapshot import RealtimeRun

AnyRun = RealtimeRun[Any, Any]


def url_of(site: str, run_id: str) -> str:
    return reverse("admin:realtime_runs_run_change", args=[quote(run_id)], current_app=site)


def list_url(site: str, **filters: str) -> str:
    return f"{reverse('admin:realtime_runs_run_changelist', current_app=site)}?{urlencode(filters)}"


def link(site: str, run: AnyRun) -> SafeString:
    """Its task, which people know it by, and its id."""
    return format_html(
        '<a class="rr-task" href="{}">{}</a><span class="rr-id">{}</span>',
        *(url_of(site, run.id), showable(run.task_identifier), run.id),
    )


def tags(site: str, names: Iterable[str]) -> SafeString:
    chips = ((list_url(site, tag=name), showable(name)) for name in names)
    return format_html_join(" ", '<a class="rr-tag" href="{}">{}</a>', chips)


def duration(run: AnyRun) -> SafeString:
    """durations.js counts on while the run goes on."""
    return format_html(
        '<span class="rr-duration" data-run="{}" data-started="{}" data-finished="{}">{}</span>',
        *(run.id, _iso(run.started_at), _iso(run.finished_at), elapsed.duration(run)),
    )


def when(at: datetime | None) -> SafeString | str:
    """The time of day; with the date when that is another one."""
    if at is None:
        return ""
    local, now = timezone.localtime(at), timezone.localtime()
    words = date_format(local, "H:i:s" if local.date() == now.date() else "Y-m-d H:i:s")
    return format_html('<time datetime="{}" title="{}">{}</time>', _iso(at), date_format(local, "Y-m-d H:i:s e"), words)


def ago(at: datetime) -> str:
    """How long it is ago: `4 min 02 s`."""
    return elapsed.seconds(max(0.0, (timezone.now() - at).total_seconds()) * 1000)


def cells(site: str, run: AnyRun) -> dict[str, Any]:
    """Of a row in a list of runs that is not Django's."""
    return {
        "id": run.id,
        "status": elements.run_status(run),
        "link": link(site, run),
        "progress": elements.run_progress(run),
        "duration": duration(run),
        "created": when(run.created_at),
    }


def _iso(at: datetime | None) -> str:
    return at.isoformat() if at else ""
