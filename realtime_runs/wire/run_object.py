"""The run object of REST answers, SSE and sockets (wire-protocol 5.1): camelCase, and absent instead of null."""

from datetime import UTC, datetime
from typing import Any, Final

from realtime_runs.live.snapshot import RealtimeRun, RunError
from realtime_runs.packets import NOTHING, unpack
from realtime_runs.statuses import RunStatus

# Of old clients, which put their streams into the metadata.
_HIDDEN_METADATA: Final = ("$$streams", "$$streamsVersion", "$$streamsBaseUrl")


def iso(when: datetime) -> str:
    """ISO 8601 in UTC, with a zone and milliseconds."""
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def common_fields(run: RealtimeRun) -> dict[str, Any]:
    """The fields that a run has everywhere: in lists, among related runs, and in the whole object."""
    optional = {
        "queuedAt": run.queued_at,
        "startedAt": run.started_at,
        "finishedAt": run.finished_at,
        "delayedUntil": run.delayed_until,
        "expiredAt": run.expired_at,
    }
    fields: dict[str, Any] = {
        "id": run.id,
        "taskIdentifier": run.task_identifier,
        "status": run.status.value,
        "v": run.version,
        "createdAt": iso(run.created_at),
        "updatedAt": iso(run.updated_at),
        **{name: iso(when) for name, when in optional.items() if when is not None},
        "isTest": run.is_test,
        "tags": list(run.tags),
        "depth": run.depth,
        "triggerFunction": run.trigger_function,
        "costInCents": 0,
        "baseCostInCents": 0,
        "durationMs": run.duration_ms,
        "isQueued": run.is_queued,
        "isExecuting": run.is_executing,
        "isWaiting": run.is_waiting,
        "isCompleted": run.is_completed,
        "isFailed": run.is_failed,
        "isSuccess": run.is_success,
        "isCancelled": run.is_cancelled,
        "metadata": {key: value for key, value in run.metadata.items() if key not in _HIDDEN_METADATA},
    }
    if run.ttl:
        fields["ttl"] = run.ttl
    if run.idempotency_key:
        fields["idempotencyKey"] = run.idempotency_key
    fields |= {"attemptCount": run.attempt_count, "queue": run.queue, "priority": run.priority}
    fields["maxAttempts"] = run.max_attempts
    others = {
        "batchId": run.batch_id,
        "concurrencyKey": run.concurrency_key,
        "maxDuration": run.max_duration,
        "parentId": run.parent_id,
        "rootId": run.root_id,
    }
    return fields | {name: value for name, value in others.items() if value}


def run_object(run: RealtimeRun) -> dict[str, Any]:
    """The whole run, but for its related runs. `payload` and `output` are plain JSON values."""
    fields = common_fields(run)
    fields["attempts"] = []
    if run.realtime_streams:
        fields["realtimeStreams"] = list(run.realtime_streams)
    if run.payload_packet != NOTHING:
        fields["payload"] = unpack(run.payload_packet)
    if run.status == RunStatus.COMPLETED and run.output_packet != NOTHING:
        fields["output"] = unpack(run.output_packet)
    if run.error is not None:
        fields["error"] = error_object(run.error)
    return fields


def error_object(error: RunError) -> dict[str, str]:
    found = {"name": error.name, "message": error.message}
    if error.stack_trace:
        found["stackTrace"] = error.stack_trace
    return found


def result_object(run: RealtimeRun) -> dict[str, Any]:
    """How a final run ended, its output as text (wire-protocol 5.6)."""
    fields: dict[str, Any] = {"ok": run.is_success, "id": run.id, "taskIdentifier": run.task_identifier}
    if not run.is_success:
        return {**fields, "error": typed_error(run)}
    if run.output_packet.text is not None:
        fields["output"] = run.output_packet.text
    return {**fields, "outputType": run.output_packet.type}


# A run that ended without an exception of its task (wire-protocol 5.6).
_CODES: Final = {
    RunStatus.CANCELED: "TASK_RUN_CANCELLED",
    RunStatus.CRASHED: "TASK_RUN_CRASHED",
    RunStatus.TIMED_OUT: "MAX_DURATION_EXCEEDED",
    RunStatus.EXPIRED: "UNSPECIFIED_ERROR",
    RunStatus.SYSTEM_FAILURE: "COULD_NOT_FIND_TASK",
}


def typed_error(run: RealtimeRun) -> dict[str, Any] | None:
    """The error of rows and results; None for a run that has none."""
    error = run.error
    if code := _CODES.get(run.status):
        found = {"type": "INTERNAL_ERROR", "code": code}
        if error is not None:
            found["message"] = error.message
            if error.stack_trace:
                found["stackTrace"] = error.stack_trace
        return found
    if error is None:
        return None
    return {
        "type": "BUILT_IN_ERROR",
        "name": error.name,
        "message": error.message,
        "stackTrace": error.stack_trace,
    }
