"""Runs in the words of the pages. What moves by itself on a page are the elements of `{% load realtime_runs %}`."""

import json
from typing import Any, Final

from django.urls import reverse
from pydantic import TypeAdapter, ValidationError

from project.airports import Report
from realtime_runs import runs
from realtime_runs.display.elapsed import duration
from realtime_runs.display.progress import read_progress
from realtime_runs.display.text import showable
from realtime_runs.packets import Packet, unpack
from realtime_runs.statuses import FINAL, UNFINISHED, RunStatus

REPORT: Final = TypeAdapter(Report)
LONGEST_TEXT: Final = 50_000  # characters of a payload or output on a page

RealtimeRun = runs.RealtimeRun[Any, Any]

# The columns of a board, and the statuses that belong into each.
COLUMNS: Final = {
    "Waiting": sorted(UNFINISHED - {RunStatus.EXECUTING, RunStatus.WAITING}),
    "Running": [RunStatus.EXECUTING, RunStatus.WAITING],
    "Finished": [RunStatus.COMPLETED],
    "Stopped": sorted(FINAL - {RunStatus.COMPLETED}),
}


def summary(run: RealtimeRun) -> dict[str, Any]:
    """A run in a list."""
    progress = read_progress(run.metadata)
    return {
        "run": run,
        "url": reverse("run", args=[run.id]),
        "task": showable(run.task_identifier, LONGEST_TEXT),
        "tags": [(showable(tag, LONGEST_TEXT), reverse("board", args=[tag])) for tag in run.tags],
        "duration": duration(run),
        "percentage": round(progress.percentage) if progress else None,
    }


def detail(run: RealtimeRun) -> dict[str, Any]:
    """A run on its own page; what there is not is empty."""
    report = import_report(run)
    metadata = {key: value for key, value in run.metadata.items() if not (report and key == "report")}
    return summary(run) | {
        "attempts": f"{run.attempt_count} of {run.max_attempts}",
        "streams": run.realtime_streams,
        "is_approval": run.task_identifier == "wait-approval" and not run.is_completed,
        "report": report,
        "metadata": pretty(metadata) if metadata else "",
        "payload": packet_text(run.payload_packet),
        "output": packet_text(run.output_packet),
        "error": showable(f"{run.error.name}: {run.error.message}", LONGEST_TEXT) if run.error else "",
        "stack_trace": showable(run.error.stack_trace, LONGEST_TEXT) if run.error else "",
    }


def import_report(run: RealtimeRun) -> Report | None:
    """What an import has counted: in its output when it is through, and in its metadata so far."""
    if run.task_identifier != "import-airports":
        return None
    try:
        return REPORT.validate_python(unpack(run.output_packet) if run.is_success else run.metadata.get("report"))
    except ValidationError:  # not there yet; and whoever triggers a run may write anything into its metadata
        return None


def columns(found: list[RealtimeRun]) -> list[tuple[str, str, list[dict[str, Any]]]]:
    """The board: name, statuses and runs of each column."""
    return [
        (name, " ".join(statuses), [summary(run) for run in found if run.status in statuses])
        for name, statuses in COLUMNS.items()
    ]


def packet_text(packet: Packet) -> str:
    return "" if packet.text is None else pretty(unpack(packet))


def pretty(value: Any) -> str:
    return showable(json.dumps(value, indent=2, ensure_ascii=False), LONGEST_TEXT)
