"""How the commands show runs: JSON lines for programs, plain text for people."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from realtime_runs.live.items import StreamRestarted
from realtime_runs.live.snapshot import RealtimeRun
from realtime_runs.packets import unpack


def json_line(value: Any) -> str:
    """One line of ASCII, whatever the encoding of the pipe."""
    return json.dumps(value, separators=(",", ":"))


def update_fields(run: RealtimeRun[Any, Any]) -> dict[str, Any]:
    """A run as an update: its state, and at the end what came of it. Keys as on the wire, absent when empty."""
    fields: dict[str, Any] = {
        "id": run.id,
        "status": str(run.status),
        "version": run.version,
        "metadata": run.metadata,
    }
    if run.is_success:
        fields["output"] = unpack(run.output_packet)  # plain JSON, not the type that the task returns
    if run.error is not None:
        fields["error"] = {
            "name": run.error.name,
            "message": run.error.message,
            "stackTrace": run.error.stack_trace,
        }
    return fields


def chunk_fields(run_id: str, stream: str, index: int, chunk: Any) -> dict[str, Any]:
    """A chunk of a stream."""
    return {"id": run_id, "stream": stream, "index": index, "chunk": chunk}


def restart_fields(restarted: StreamRestarted) -> dict[str, Any]:
    """A stream begins anew: what was written of it before is void."""
    return {
        "id": restarted.run_id,
        "stream": restarted.stream,
        "index": restarted.index,
        "restartedBy": restarted.attempt,
    }


def list_fields(run: RealtimeRun[Any, Any]) -> dict[str, Any]:
    """A run as an item of a list."""
    fields = {
        "id": run.id,
        "taskIdentifier": run.task_identifier,
        "status": str(run.status),
        "tags": list(run.tags),
        "createdAt": iso(run.created_at),
        "startedAt": iso(run.started_at),
        "finishedAt": iso(run.finished_at),
        "durationMs": run.duration_ms,
        "batchId": run.batch_id,
        "version": run.version,
    }
    return {key: value for key, value in fields.items() if value is not None}


def iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def printable(text: str) -> str:
    """Text from a run that cannot steer the terminal it is printed on."""
    return "".join(character if character.isprintable() else "�" for character in text)


def one_line(text: str) -> str:
    """An error message as a single printable line."""
    return printable(" ".join(text.split()))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Left-aligned columns, two spaces apart."""
    lines = [list(header), *(list(map(printable, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
