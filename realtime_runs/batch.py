"""Batches: runs of one or several tasks, made together."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Required, TypedDict

from asgiref.sync import sync_to_async
from django.db.models import Max

from realtime_runs.engine import triggering
from realtime_runs.engine.options import TriggerOptions
from realtime_runs.engine.triggering import BatchHandle, Request
from realtime_runs.exceptions import InvalidInput
from realtime_runs.models import Run
from realtime_runs.tasks import Task

__all__ = ["BatchHandle", "BatchItem", "BatchState", "aretrieve", "atrigger", "retrieve", "trigger"]


class BatchItem(TypedDict, total=False):
    """One run of a batch. `task`: a Task or its id."""

    task: Required[Task[Any, Any] | str]
    payload: Any
    options: TriggerOptions


@dataclass(frozen=True, slots=True)
class BatchState:
    """A batch as it is. `is_completed`: all of its runs are final, whatever their end. `is_open`: it was begun over
    HTTP and waits for `run_count` items; no run is made yet. `updated_at`: when one of its runs changed last.
    """

    id: str
    created_at: datetime
    updated_at: datetime
    run_count: int
    run_ids: tuple[str, ...]
    is_open: bool
    is_completed: bool
    idempotency_key: str


def trigger(items: Iterable[BatchItem]) -> BatchHandle:
    """Create all runs, at most 1,000, or none. Raises what `tasks.trigger` raises, for the first bad item;
    a note on the error says which one.
    """
    given = list(items)
    triggering.check_batch_size(len(given))
    return triggering.trigger_batch([_request(index, item) for index, item in enumerate(given)])


atrigger = sync_to_async(trigger)


def retrieve(batch: BatchHandle | str) -> BatchState:
    """Raises BatchNotFound."""
    row = triggering.get_batch(batch if isinstance(batch, str) else batch.id)
    runs = Run.objects.filter(batch=row)
    changed_at = runs.aggregate(last=Max("updated_at"))["last"]
    return BatchState(
        id=row.id,
        created_at=row.created_at,
        updated_at=changed_at or row.created_at,
        run_count=row.run_count,
        run_ids=tuple(runs.order_by("batch_index").values_list("pk", flat=True)),
        is_open=row.is_open,
        is_completed=not row.is_open and not runs.unfinished().exists(),
        idempotency_key=row.idempotency_key,
    )


aretrieve = sync_to_async(retrieve)


def _request(index: int, item: BatchItem) -> Request:
    if not isinstance(item, dict) or "task" not in item or item.keys() - BatchItem.__annotations__.keys():
        raise InvalidInput(
            f"Item {index} of the batch must be a dict with `task` and, if needed, `payload` and `options`."
        )
    task = item["task"]
    try:
        return Request.check(
            task.id if isinstance(task, Task) else task, item.get("payload"), item.get("options", {}), "batchTrigger"
        )
    except Exception as error:
        error.add_note(f"This is item {index} of the batch; no run was made.")
        raise
