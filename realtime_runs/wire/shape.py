"""The shape log: runs as rows of texts, in the form of Electric's protocol (wire-protocol 7.2 and 7.4)."""

from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from realtime_runs.live.snapshot import RealtimeRun
from realtime_runs.statuses import RunStatus
from realtime_runs.wire.encoding import Encoded, dumps
from realtime_runs.wire.run_object import typed_error

UP_TO_DATE: Final = b'{"headers":{"control":"up-to-date"}}'
MUST_REFETCH: Final = b'[{"headers":{"control":"must-refetch"}}]'

# Rows have the names of the reference server's table, which the client knows how to read (wire-protocol 1.6).
_STATUSES: Final = {
    RunStatus.QUEUED: "PENDING",
    RunStatus.WAITING: "WAITING_TO_RESUME",
    RunStatus.COMPLETED: "COMPLETED_SUCCESSFULLY",
    RunStatus.FAILED: "COMPLETED_WITH_ERRORS",
}


def _time(when: datetime | None) -> str | None:
    """Without a zone: the client adds it."""
    return None if when is None else when.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds")


def _array(texts: Iterable[str]) -> str:
    """A list as PostgreSQL writes an array of texts."""
    return "{" + ",".join('"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' for text in texts) + "}"


def _error(run: RealtimeRun) -> str | None:
    error = typed_error(run)
    return None if error is None else dumps(error).decode()


_Column = tuple[dict[str, Any], Callable[[RealtimeRun], str | None]]
_TEXT: Final = {"type": "text"}
_TEXTS: Final = {"type": "text", "dims": 1}
_TIME: Final = {"type": "timestamp"}
_COLUMNS: Final[dict[str, _Column]] = {
    "id": (_TEXT, lambda run: run.id),
    "friendlyId": (_TEXT, lambda run: run.id),
    "taskIdentifier": (_TEXT, lambda run: run.task_identifier),
    "status": (_TEXT, lambda run: _STATUSES.get(run.status, run.status.value)),
    "createdAt": (_TIME, lambda run: _time(run.created_at)),
    "updatedAt": (_TIME, lambda run: _time(run.updated_at)),
    "startedAt": (_TIME, lambda run: _time(run.started_at)),
    "queuedAt": (_TIME, lambda run: _time(run.queued_at)),
    "delayUntil": (_TIME, lambda run: _time(run.delayed_until)),
    "expiredAt": (_TIME, lambda run: _time(run.expired_at)),
    "completedAt": (_TIME, lambda run: _time(run.finished_at)),
    "isTest": ({"type": "bool"}, lambda run: "t" if run.is_test else "f"),
    "usageDurationMs": ({"type": "int4"}, lambda run: str(min(run.duration_ms, 2**31 - 1))),
    "costInCents": ({"type": "float8"}, lambda run: "0"),
    "baseCostInCents": ({"type": "float8"}, lambda run: "0"),
    "ttl": (_TEXT, lambda run: run.ttl or None),
    "payload": (_TEXT, lambda run: run.payload_packet.text),
    "payloadType": (_TEXT, lambda run: run.payload_packet.type),
    "output": (_TEXT, lambda run: run.output_packet.text),
    "outputType": (_TEXT, lambda run: run.output_packet.type),
    "metadata": (_TEXT, lambda run: run.metadata_json),
    "metadataType": (_TEXT, lambda run: "application/json"),
    "runTags": (_TEXTS, lambda run: _array(run.tags)),
    "error": ({"type": "jsonb"}, _error),
    "realtimeStreams": (_TEXTS, lambda run: _array(run.realtime_streams)),
    "idempotencyKey": (_TEXT, lambda run: run.idempotency_key or None),
}
_NEVER_SKIPPED: Final = {"id", "friendlyId", "taskIdentifier", "status", "createdAt", "updatedAt"}

_encoded: Final = Encoded()


def columns(skipped: Collection[str]) -> tuple[str, ...]:
    """Those that are sent when the client, or its token, wants some to be left out."""
    return tuple(name for name in _COLUMNS if name in _NEVER_SKIPPED or name not in skipped)


def schema(names: Collection[str]) -> str:
    return dumps({name: _COLUMNS[name][0] for name in names}).decode()


def row(run: RealtimeRun, names: tuple[str, ...]) -> dict[str, str | None]:
    return {name: _COLUMNS[name][1](run) for name in names}


def messages(runs: Iterable[RealtimeRun], names: tuple[str, ...], operation: str) -> bytes:
    """The body of an answer. A row is encoded once for all readers of a version that want the same columns."""
    changes = [
        _encoded.get((run.id, run.version, names, operation), partial(_change, run, names, operation)) for run in runs
    ]
    return b"[" + b",".join([*changes, UP_TO_DATE]) + b"]"


def _change(run: RealtimeRun, names: tuple[str, ...], operation: str) -> bytes:
    change = {
        "key": f'"public"."TaskRun"/"{run.id}"',
        "value": row(run, names),
        "headers": {"operation": operation},
    }
    return dumps(change)
