"""What the page of a run shows, read with few queries, however much there is."""

import json
import re
from dataclasses import dataclass
from typing import Any, Final

from django.db.models import QuerySet
from django.utils import timezone

from realtime_runs.admin import bounded, timeline
from realtime_runs.admin.tree import tree
from realtime_runs.display.chunks import joined
from realtime_runs.display.elapsed import duration
from realtime_runs.display.text import showable
from realtime_runs.engine.listing import without_packets
from realtime_runs.live.snapshot import RunError, snapshot
from realtime_runs.live.stream_reading import read_newest
from realtime_runs.models import Attempt, Run, RunEvent, Stream, StreamName, WaitToken
from realtime_runs.models.stream import INPUT
from realtime_runs.packets import PLAIN_TEXT

LONGEST_TEXT: Final = 64 * 1024  # characters of a payload or output that a page shows
MOST_CHILDREN: Final = 50
_MOST_STREAMS: Final = 20
_MOST_INPUTS: Final = 5
_MOST_INPUT_CHARACTERS: Final = 4096
_MOST_ATTEMPTS: Final = 50
_LONGEST_ERROR: Final = 32 * 1024
_TOKEN_ID: Final = re.compile(r"\bwaitpoint_[0-9a-z]{28}\b")


@dataclass(frozen=True, slots=True)
class Text:
    """A payload or output. `text` is None when there is none; `size` is in characters."""

    text: str | None
    size: int = 0
    is_cut: bool = False


def packet_text(start: str | None, length: int | None, type_: str) -> Text:
    """JSON is indented where all of it is there."""
    if start is None or length is None:
        return Text(None)
    is_cut = length > LONGEST_TEXT
    if not is_cut and type_ != PLAIN_TEXT:
        start = pretty(start)
    return Text(showable(start[:LONGEST_TEXT]), length, is_cut)


def pretty(text: str) -> str:
    try:
        return json.dumps(json.loads(text), ensure_ascii=False, indent=2)
    except (ValueError, RecursionError):
        return text


def shown_error(text: str) -> RunError | None:
    error = RunError.from_json(text)
    if error is None:
        return None
    trace = error.stack_trace[-_LONGEST_ERROR:]  # its end says what happened
    return RunError(showable(error.name, 200), showable(error.message, _LONGEST_ERROR), showable(trace))


def read(run: Run, visible: "QuerySet[Run]", known_streams: int = 0) -> dict[str, Any]:
    """The context of the page. `run` has the annotations of `RunAdmin.get_object`. `visible`: the runs that the reader
    may see. `known_streams`: so many of the first ones are on the page already, and are not read again.
    """
    now = timezone.now()
    row: Any = run
    shown = snapshot(without_packets(run))
    attempts = list(Attempt.objects.filter(run=run).order_by("-number")[:_MOST_ATTEMPTS])[::-1]
    events = list(RunEvent.objects.filter(run=run).order_by("-pk")[: timeline.MOST_EVENTS])[::-1]
    children = list(without_texts(visible.filter(parent=run.pk).order_by("-pk"))[: MOST_CHILDREN + 1])
    relatives = {pk for pk in (run.parent_id, run.root_id) if pk}
    known = set(visible.filter(pk__in=relatives).values_list("pk", flat=True)) if relatives else set()
    keys = run.realtime_streams[:_MOST_STREAMS]
    return {
        "run": shown,
        "duration": duration(shown),
        "timeline": timeline.draw(run, events, attempts, now),
        "error": shown_error(run.error),
        "attempts": [(attempt, shown_error(attempt.error)) for attempt in attempts],
        "payload": packet_text(row.payload_start, row.payload_length, run.payload_type),
        "output": packet_text(row.output_start, row.output_length, run.output_type),
        "metadata_tree": tree(shown.metadata) if shown.metadata else "",
        "streams": [(key, number < known_streams) for number, key in enumerate(keys)],
        "streams_left": len(run.realtime_streams) - len(keys),
        "inputs": _inputs(run),
        "children": [snapshot(listed(child)) for child in children[:MOST_CHILDREN]],
        "children_count": bounded.Count(min(len(children), MOST_CHILDREN), len(children) > MOST_CHILDREN),
        "parent": (run.parent_id, run.parent_id in known),
        "root": (run.root_id, run.root_id in known) if run.root_id != run.parent_id else ("", False),
    }


def without_texts(runs: "QuerySet[Run]") -> "QuerySet[Run]":
    """Without what may be megabytes and is in no list. Metadata is: the progress comes from it."""
    return runs.defer("payload", "output", "error")


def listed(row: Run) -> Run:
    """A row of `without_texts`, which asks the database for nothing more."""
    row.error = ""
    return without_packets(row)


def _inputs(run: Run) -> list[dict[str, Any]]:
    rows = list(Stream.objects.filter(run=run, kind=INPUT).order_by("key")[:_MOST_INPUTS])
    return [
        {"key": showable(row.key), "sent": row.next_index, "taken": row.consumed, "text": _newest(row.name)}
        for row in rows
    ]


def _newest(name: StreamName) -> str:
    chunks = read_newest(name, _MOST_INPUT_CHARACTERS).chunks
    return showable(joined(json.loads(chunk.data) for chunk in chunks)[-_MOST_INPUT_CHARACTERS:])


def tokens_of(run: Run) -> list[WaitToken]:
    """The wait tokens that can still be completed and that payload or metadata of the run name. A run keeps no record
    of what it waits for.
    """
    row: Any = run
    named = sorted(set(_TOKEN_ID.findall(f"{row.payload_start or ''} {run.metadata}")))
    return list(WaitToken.objects.open().filter(pk__in=named[:50]).defer("output").order_by("pk")) if named else []
