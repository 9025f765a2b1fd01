"""What the server renders of a run: complete, readable without JavaScript. `elements.js` goes on from there, in place.

Everything that a task wrote is text here. `part` names what a style sheet may want to reach.
"""

from typing import Any, Final

from django.http import HttpRequest
from django.middleware.csrf import get_token
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from realtime_runs.access import rules
from realtime_runs.access.principals import SiteUser
from realtime_runs.display.chunks import newest_text
from realtime_runs.display.counts import BatchCounts
from realtime_runs.display.progress import Progress, read_note, read_progress
from realtime_runs.display.text import showable
from realtime_runs.engine.writing import check_key
from realtime_runs.live.snapshot import RealtimeRun
from realtime_runs.models import Run

AnyRun = RealtimeRun[Any, Any]

_NOTHING: Final = Progress(0)


def run_status(run: AnyRun) -> SafeString:
    """The status as a badge: its name, on a colour that goes with it."""
    return format_html(
        '<run-status run="{}" data-task="{}" data-status="{}" data-version="{}">'
        '<span part="label">{}</span></run-status>',
        *(run.id, showable(run.task_identifier), run.status.value, run.version, run.status.label),
    )


def run_progress(run: AnyRun) -> SafeString:
    """How far the run is by its metadata: a bar, and the same in words. Nothing else moves when they change."""
    progress = read_progress(run.metadata)
    percentage = "" if progress is None else f"{int(progress.percentage)}%"
    amount = progress.text if progress else ""
    note = showable(read_note(run.metadata), 200)
    spoken = ", ".join(filter(None, (percentage, amount, note)))
    return format_html(
        '<run-progress run="{}" data-task="{}" data-status="{}" data-version="{}">'
        '<progress part="bar" max="100"{} aria-label="Progress of {}"{}></progress>'
        '<span part="text"><span part="percentage">{}</span> <span part="amount">{}</span>'
        ' <span part="note" dir="auto">{}</span></span></run-progress>',
        *(run.id, showable(run.task_identifier), run.status.value, run.version),
        _value(run, progress),
        showable(run.task_identifier),
        format_html(' aria-valuetext="{}"', spoken) if spoken else "",
        *(percentage, amount, note),
    )


def _value(run: AnyRun, progress: Progress | None) -> SafeString | str:
    """A bar without a value says that something is going on, and not how far it is."""
    if progress is None and run.started_at is not None and not run.is_completed:
        return ""
    shown = progress or (Progress(100) if run.is_success else _NOTHING)
    return format_html(' value="{}"', f"{shown.percentage:.2f}".rstrip("0").rstrip("."))


def run_stream(run: AnyRun, key: str = "default") -> SafeString:
    """The newest part of what the stream holds, and from which index on the rest will come.

    Queries the database. Raises InvalidOption for a key that no stream can have.
    """
    stored = newest_text(run.id, check_key(key))
    return format_html(
        '<run-stream run="{}" key="{}" data-next-index="{}"{}>'
        '<p part="omitted"{}>What came earlier is left out.</p>'
        # The first line break behind a pre is not part of its text: without this one a text would lose its own.
        '<pre part="text" role="log" aria-live="polite" aria-label="{}" tabindex="0" dir="auto">\n{}</pre>'
        "</run-stream>",
        *(run.id, showable(key), stored.next_index),
        format_html(' data-end="{}"', stored.end_reason) if stored.end_reason else "",
        "" if stored.is_cut else SafeString(" hidden"),
        f"{showable(key)} of {showable(run.task_identifier)}",
        stored.text,
    )


def batch_progress(batch_id: str) -> SafeString:
    """How many runs of the batch are over. Queries the database; raises BatchNotFound."""
    counts = BatchCounts.of(batch_id)
    return format_html(
        '<batch-progress batch="{}" data-total="{}"{}>'
        '<progress part="bar" max="{}" value="{}" aria-label="Progress of the batch" aria-valuetext="{}"></progress>'
        '<span part="text"><span part="finished">{}</span> <span part="failed">{}</span>'
        ' <span part="canceled">{}</span></span></batch-progress>',
        *(batch_id, counts.total, SafeString(" data-end") if counts.is_over else ""),
        *(max(counts.total, 1), counts.finished, ", ".join(filter(None, counts.texts))),
        *counts.texts,
    )


def run_cancel_button(run: AnyRun, request: HttpRequest, action: str = "") -> SafeString:
    """A form that cancels the run. It is hidden when the run is over, and missing where the policy would refuse it.

    `action`: the URL of a view of your own, which decides for itself. Queries the database. Raises NoReverseMatch
    where `realtime_runs.urls` is not included.
    """
    if run.is_completed or not (action or may_cancel(request, run.id)):
        hidden = '<run-cancel run="{}" data-status="{}" data-version="{}" hidden></run-cancel>'
        return format_html(hidden, run.id, run.status.value, run.version)
    return format_html(
        '<run-cancel run="{}" data-status="{}" data-version="{}"><form part="form" method="post" action="{}">'
        '<input type="hidden" name="csrfmiddlewaretoken" value="{}"><input type="hidden" name="next" value="{}">'
        '<button part="button" aria-label="Cancel {}">Cancel</button></form></run-cancel>',
        *(run.id, run.status.value, run.version),
        action or reverse("realtime_runs:cancel-run", args=[run.id]),
        *(get_token(request), request.get_full_path(), showable(run.task_identifier)),
    )


def may_cancel(request: HttpRequest, run_id: str) -> bool:
    """Whether the policy lets the user who is logged in cancel the run."""
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated or not user.is_active:
        return False
    row = Run.objects.without_packets().find(run_id)
    return SiteUser(user).may(rules.cancel(run_id, row))


def missing(element: str, id: str, **attributes: str) -> SafeString:
    """The element of a run or batch that does not exist, or no longer: old ones are removed."""
    kind = "batch" if element == "batch-progress" else "run"
    if element == "run-cancel":
        return format_html('<run-cancel run="{}" data-missing hidden></run-cancel>', showable(id, 100))
    more = "".join(format_html(' {}="{}"', name, showable(value)) for name, value in attributes.items())
    return format_html(
        '<{} {}="{}"{} data-missing><span part="missing">No such {}</span></{}>',
        *(element, kind, showable(id, 100), SafeString(more), kind, element),
    )
