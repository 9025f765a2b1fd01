"""`{% load realtime_runs %}`: runs on pages, rendered by the server and kept up to date by elements.js.

A run is an id, a row, a handle or a snapshot; for an id or a handle it is looked up. A run or batch that does not exist
gives an element that says so: old runs are removed while links to them stay, and a page must outlive that. An empty
text or None raises InvalidOption instead, as for `{% url %}`: mostly it is a variable whose name is misspelled.
"""

from collections.abc import Callable
from copy import copy
from typing import Any

from django import template
from django.middleware.csrf import get_token
from django.templatetags.static import static
from django.urls import NoReverseMatch, get_script_prefix, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from realtime_runs.batch import BatchHandle, BatchState
from realtime_runs.display import elements
from realtime_runs.engine.listing import without_packets
from realtime_runs.engine.triggering import RunHandle
from realtime_runs.exceptions import BatchNotFound, InvalidOption, RunNotFound
from realtime_runs.live.snapshot import RealtimeRun, snapshot
from realtime_runs.models import Batch, Run

register = template.Library()

Render = Callable[[RealtimeRun[Any, Any]], SafeString]


@register.simple_tag
def run_status(run: Any) -> SafeString:
    """`{% run_status run %}`: the status as a badge."""
    return _render("run-status", run, elements.run_status)


@register.simple_tag
def run_progress(run: Any) -> SafeString:
    """`{% run_progress run %}`: a bar, percentage, amount and note, by the run's metadata."""
    return _render("run-progress", run, elements.run_progress)


@register.simple_tag
def run_stream(run: Any, key: str = "default") -> SafeString:
    """`{% run_stream run "key" %}`: the text of a stream."""
    return _render("run-stream", run, lambda found: elements.run_stream(found, key), key=key)


@register.simple_tag(takes_context=True)
def run_cancel_button(context: template.Context, run: Any, action: str = "") -> SafeString:
    """`{% run_cancel_button run %}`: for who may cancel the run, while it is not over. `action`: the URL of a view of
    your own, which decides for itself who may.
    """
    request = context.get("request")
    if request is None:
        raise InvalidOption(
            "{% run_cancel_button %} needs the context processor django.template.context_processors.request."
        )
    return _render("run-cancel", run, lambda found: elements.run_cancel_button(found, request, action))


@register.simple_tag
def batch_progress(batch: Any) -> SafeString:
    """`{% batch_progress batch %}`: how many of its runs are over. A batch is an id, a row, a handle or a state."""
    batch_id = _id(batch, "batch", (Batch, BatchHandle, BatchState))
    try:
        return elements.batch_progress(batch_id)
    except BatchNotFound:
        return elements.missing("batch-progress", batch_id)


@register.simple_tag(takes_context=True)
def realtime_runs_js(context: template.Context, token: str = "", refresh_url: str = "", base: str = "") -> SafeString:
    """`{% realtime_runs_js %}`, in the head: the style sheet, the module, and how it finds and asks the server.

    `token`: a public token; without one the session of the user counts. `refresh_url`: where a POST gives a new one, as
    `{"token": …}`. `base`: the path below which the app is included, if it is not found by itself.
    """
    attributes = {"base": base or _base(), "token": token, "refresh": refresh_url}
    request = context.get("request")
    if refresh_url and request is not None:
        attributes["csrf"] = get_token(request)
    data = "".join(format_html(' data-{}="{}"', name, value) for name, value in attributes.items() if value)
    return format_html(
        '<meta name="realtime-runs"{}>\n<link rel="stylesheet" href="{}">\n<script type="module" src="{}"></script>',
        SafeString(data),
        static("realtime_runs/elements.css"),
        static("realtime_runs/elements.js"),
    )


def _base() -> str:
    try:
        return reverse("realtime_runs:schema").removesuffix("api/schema")
    except NoReverseMatch:  # only `realtime/` is served
        return get_script_prefix()


def _render(element: str, run: Any, render: Render, **attributes: str) -> SafeString:
    try:
        return render(_snapshot(run))
    except RunNotFound as error:
        return elements.missing(element, error.id, **attributes)


def _snapshot(run: Any) -> RealtimeRun[Any, Any]:
    """What is shown of a run needs neither payload nor output, which may be megabytes."""
    if isinstance(run, RealtimeRun):
        return run
    if isinstance(run, Run):
        return snapshot(without_packets(copy(run)))
    run_id = _id(run, "run", (RunHandle,))
    row = Run.objects.without_packets().find(run_id)
    if row is None:
        raise RunNotFound(run_id)
    return snapshot(without_packets(row))


def _id(given: Any, what: str, kinds: tuple[type[Any], ...]) -> str:
    """Raises InvalidOption."""
    found = given.id if isinstance(given, kinds) else given
    if not isinstance(found, str) or not found:
        raise InvalidOption(f"A {what} is an id, a row, a handle or a snapshot, not {given!r}.")
    return found
