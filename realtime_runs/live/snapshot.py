"""The snapshot of a run's row. What a snapshot is stands in `realtime_run`, which needs no database."""

from dataclasses import replace

from realtime_runs.live.realtime_run import O, P, PayloadTypes, RealtimeRun, RunError
from realtime_runs.models import Run
from realtime_runs.statuses import RunStatus

__all__ = ["O", "P", "PayloadTypes", "RealtimeRun", "RunError", "snapshot", "typed"]


def snapshot(run: Run, types: PayloadTypes | None = None) -> RealtimeRun:
    return RealtimeRun(
        id=run.id,
        task_identifier=run.task,
        status=RunStatus(run.status),
        version=run.version,
        created_at=run.created_at,
        updated_at=run.updated_at,
        queued_at=run.queued_at,
        started_at=run.started_at,
        finished_at=run.finished_at,
        delayed_until=run.delayed_until,
        expired_at=run.expired_at,
        ttl=run.ttl,
        tags=tuple(run.tag_names),
        attempt_count=run.attempt,
        max_attempts=run.max_attempts,
        max_duration=run.max_duration,
        queue=run.queue,
        concurrency_key=run.concurrency_key,
        priority=run.priority,
        is_test=run.is_test,
        idempotency_key=run.idempotency_key,
        batch_id=run.batch_id,
        parent_id=run.parent_id,
        root_id=run.root_id,
        depth=run.depth,
        trigger_function=run.trigger_function,
        realtime_streams=tuple(run.realtime_streams),
        error=RunError.from_json(run.error),
        metadata_json=run.metadata,
        payload_packet=run.payload_packet,
        output_packet=run.output_packet,
        types=types,
    )


def typed(run: RealtimeRun, types: PayloadTypes | None) -> RealtimeRun:
    """The same snapshot, whose payload and output are read by these types."""
    return run if types is None else replace(run, types=types)
