"""Runs as the pages show them: texts only, the same for the first rendering and for each update by JavaScript."""

import json
from datetime import UTC, datetime
from typing import Any

from django.urls import reverse

from realtime_runs import runs
from realtime_runs.display.elapsed import duration
from realtime_runs.display.progress import read_progress
from realtime_runs.packets import Packet, unpack

LONGEST_TEXT = 50_000  # characters of a payload or output on a page

RealtimeRun = runs.RealtimeRun[Any, Any]


def summary(run: RealtimeRun) -> dict[str, Any]:
    """A run in the list. `percentage` is None when the run does not say how far it is."""
    progress = read_progress(run.metadata)
    return {
        "id": run.id,
        "url": reverse("run", args=[run.id]),
        "task": showable(run.task_identifier),
        "status": str(run.status),
        "statusLabel": str(run.status.label),
        "isLive": not run.is_completed,
        "tags": [showable(tag) for tag in run.tags],
        "percentage": round(progress.percentage) if progress else None,
        "progressText": progress.text if progress else "",
        "note": note(run.metadata),
        "duration": duration(run),
        "createdAt": moment(run.created_at),
    }


def detail(run: RealtimeRun) -> dict[str, Any]:
    """A run on its own page: the summary and everything else as text; what there is not is empty."""
    return summary(run) | {
        "startedAt": moment(run.started_at),
        "finishedAt": moment(run.finished_at),
        "attempts": f"{run.attempt_count} of {run.max_attempts}",
        "queue": showable(run.queue),
        "version": str(run.version),
        "metadata": pretty(run.metadata) if run.metadata else "",
        "payload": packet_text(run.payload_packet),
        "output": packet_text(run.output_packet),
        "errorMessage": showable(f"{run.error.name}: {run.error.message}") if run.error else "",
        "stackTrace": showable(run.error.stack_trace) if run.error else "",
    }


def moment(at: datetime | None) -> str:
    """In a form that HTML's `datetime` and people can both read."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}" if at else ""


def note(metadata: dict[str, Any]) -> str:
    """What a run says about itself: its status, or else the item it is at."""
    progress = metadata.get("progress")
    item = progress.get("currentItem") if isinstance(progress, dict) else None
    text = metadata.get("status", item)
    return showable(text) if isinstance(text, str) else ""


def packet_text(packet: Packet) -> str:
    return "" if packet.text is None else pretty(unpack(packet))


def pretty(value: Any) -> str:
    return showable(json.dumps(value, indent=2, ensure_ascii=False))


def showable(text: str) -> str:
    """A text that fits on a page and into UTF-8: a task may leave half characters in what it returns or raises."""
    text = text.encode(errors="replace").decode()
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}\n… ({len(text):,} characters in all)"
