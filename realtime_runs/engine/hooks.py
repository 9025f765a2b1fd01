"""Running the hooks of a task. What a hook raises is logged: the run is decided already."""

import inspect
import logging
from datetime import timedelta
from typing import Any, Final

from asgiref.sync import sync_to_async
from django.db import transaction

from realtime_runs.engine import registry
from realtime_runs.engine.definition import TaskDefinition, hook_after
from realtime_runs.live.snapshot import RealtimeRun, snapshot
from realtime_runs.models import FromNow, Run

logger = logging.getLogger("realtime_runs.engine")

# A worker that dies inside a hook leaves it to another one after this time. So a hook may run twice, but is never lost.
_TRY_AGAIN_AFTER: Final = timedelta(minutes=5)


async def run_hook(task: TaskDefinition[Any, Any], name: str, run: RealtimeRun) -> None:
    hook = task.hooks.get(name)
    if hook is None:
        return
    try:
        if inspect.iscoroutinefunction(hook):
            await hook(run)
        else:
            await sync_to_async(hook)(run)
    except Exception:
        logger.exception("Hook %s of task %r failed for run %s.", name, task.id, run.id)


async def run_final_hook(run: Run) -> None:
    """Run the hook that belongs to the end of a run whose hook was claimed."""
    if task := registry.find(run.task):
        end = snapshot(run, task)
        await run_hook(task, hook_after(end.status), end)


def due_hooks(task_ids: list[str], limit: int) -> list[str]:
    """Ids of runs whose hook should run, of tasks this process knows."""
    return list(
        Run.objects.with_hook_due().filter(task__in=task_ids).order_by("hook_at").values_list("pk", flat=True)[:limit]
    )


@transaction.atomic
def claim_hook(run_id: str) -> Run | None:
    """The run, if its hook is ours to run; nobody else gets it within the next minutes."""
    if not Run.objects.with_hook_due().filter(pk=run_id).update(hook_at=FromNow(_TRY_AGAIN_AFTER)):
        return None
    return Run.objects.get(pk=run_id)


def finish_hook(run_id: str) -> None:
    Run.objects.filter(pk=run_id).update(hook_at=None)
