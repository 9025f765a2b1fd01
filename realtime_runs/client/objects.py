"""What the client gives: the run as in a Django project, and the small things around it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from realtime_runs.live.realtime_run import RealtimeRun, RunError
from realtime_runs.packets import JSON, NOTHING, Packet
from realtime_runs.statuses import RunStatus

Run = RealtimeRun[Any, Any]


@dataclass(frozen=True, slots=True)
class RunHandle:
    """What `trigger` returns. `public_access_token` may watch the run for an hour."""

    id: str
    is_cached: bool = False
    public_access_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class BatchHandle:
    """What a batch trigger returns. `run_ids` are in item order."""

    id: str
    run_ids: tuple[str, ...]
    public_access_token: str = field(default="", repr=False)

    @property
    def run_count(self) -> int:
        return len(self.run_ids)


@dataclass(frozen=True, slots=True)
class BatchState:
    """A batch as it is. `is_completed`: all of its runs are final, whatever their end. `is_open`: it was begun, and
    waits for `run_count` items; no run is made yet. `updated_at`: when one of its runs changed last.
    """

    id: str
    created_at: datetime
    updated_at: datetime
    run_count: int
    run_ids: tuple[str, ...]
    is_open: bool
    is_completed: bool
    idempotency_key: str


@dataclass(frozen=True, slots=True)
class WaitToken:
    """A wait token as it was when it was read. `url`: whoever has it may complete the token by POST."""

    id: str
    url: str
    status: str
    tags: tuple[str, ...]
    created_at: datetime
    timeout_at: datetime
    completed_at: datetime | None
    idempotency_key: str
    idempotency_key_expires_at: datetime | None
    output: Any
    is_cached: bool = False

    @property
    def is_waiting(self) -> bool:
        return self.status == "WAITING"

    @property
    def is_completed(self) -> bool:
        return self.status == "COMPLETED"

    @property
    def is_timed_out(self) -> bool:
        return self.status == "TIMED_OUT"


def id_of(thing: Any) -> str:
    """An id, or of a handle or a run its id."""
    return thing if isinstance(thing, str) else str(thing.id)


def time_of(fields: Mapping[str, Any], name: str) -> datetime | None:
    text = fields.get(name)
    return None if text is None else datetime.fromisoformat(text)


def _packet(fields: Mapping[str, Any], name: str) -> Packet:
    return Packet(json.dumps(fields[name]), JSON) if name in fields else NOTHING


def run_of(fields: Mapping[str, Any]) -> Run:
    """From the run object of an answer or a frame (wire-protocol 5.1); a token may leave out most of it."""
    error = fields.get("error")
    return RealtimeRun(
        id=fields["id"],
        task_identifier=fields["taskIdentifier"],
        status=RunStatus(fields["status"]),
        version=fields["v"],
        created_at=datetime.fromisoformat(fields["createdAt"]),
        updated_at=datetime.fromisoformat(fields["updatedAt"]),
        queued_at=time_of(fields, "queuedAt"),
        started_at=time_of(fields, "startedAt"),
        finished_at=time_of(fields, "finishedAt"),
        delayed_until=time_of(fields, "delayedUntil"),
        expired_at=time_of(fields, "expiredAt"),
        ttl=fields.get("ttl", ""),
        tags=tuple(fields.get("tags", ())),
        attempt_count=fields.get("attemptCount", 0),
        max_attempts=fields.get("maxAttempts", 1),
        max_duration=fields.get("maxDuration"),
        queue=fields.get("queue", "default"),
        concurrency_key=fields.get("concurrencyKey", ""),
        priority=fields.get("priority", 0),
        is_test=fields.get("isTest", False),
        idempotency_key=fields.get("idempotencyKey", ""),
        batch_id=fields.get("batchId"),
        parent_id=fields.get("parentId"),
        root_id=fields.get("rootId"),
        depth=fields.get("depth", 0),
        trigger_function=fields.get("triggerFunction", "trigger"),
        realtime_streams=tuple(fields.get("realtimeStreams", ())),
        error=error and RunError(error.get("name", ""), error["message"], error.get("stackTrace", "")),
        metadata_json=json.dumps(fields.get("metadata") or {}),
        payload_packet=_packet(fields, "payload"),
        output_packet=_packet(fields, "output"),
    )
