"""Running the hooks of a task. What a hook raises is logged: the run is decided already."""

import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import lru_cache
from typing import Any, Final

from django.db import connection

from realtime_runs.engine import registry
from realtime_runs.engine.definition import TaskDefinition, hook_after
from realtime_runs.engine.outcome import outcome
from realtime_runs.live.snapshot import RealtimeRun, snapshot
from realtime_runs.models import FromNow, Run
from realtime_runs.models.prepared import Prepared
from realtime_runs.turns import atomic

logger = logging.getLogger("realtime_runs.engine")

# A worker that dies inside a hook leaves it to another one after this time. So a hook may run twice, but is never lost.
_TRY_AGAIN_AFTER: Final = timedelta(minutes=5)


CallSync = Callable[[Callable[[], Any]], Awaitable[Any]]  # runs a sync function where it may block


async def run_hook(task: TaskDefinition[Any, Any], name: str, run: RealtimeRun, call_sync: CallSync) -> None:
    """Call the hook, if the task has it. Whatever it raises, also SystemExit, is logged."""
    hook = task.hooks.get(name)
    if hook is None:
        return
    call = hook(run) if inspect.iscoroutinefunction(hook) else call_sync(lambda: hook(run))
    # A task of its own: what it raises, be it a cancellation, is its own and not ours.
    _, error = await outcome(call)
    if error is not None:
        logger.error("Hook %s of task %r failed for run %s.", name, task.id, run.id, exc_info=error)


async def run_final_hook(run: Run, call_sync: CallSync) -> None:
    """Run the hook that belongs to the end of a run whose hook was claimed."""
    if task := registry.find(run.task):
        end = snapshot(run, task)
        await run_hook(task, hook_after(end.status), end, call_sync)


def due_hooks(task_ids: Sequence[str], limit: int) -> list[str]:
    """Ids of runs whose hook should run, of tasks this process knows."""
    return [pk for (pk,) in _prepared_due(connection.vendor, tuple(task_ids), limit).rows()]


@lru_cache(maxsize=16)
def _prepared_due(vendor: str, task_ids: tuple[str, ...], limit: int) -> Prepared:
    due = Run.objects.with_hook_due().filter(task__in=task_ids).order_by("hook_at")
    return Prepared.read(due.values_list("pk")[:limit])


@atomic()
def claim_hook(run_id: str) -> Run | None:
    """The run, if its hook is ours to run; nobody else gets it within the next minutes."""
    if not Run.objects.with_hook_due().filter(pk=run_id).update(hook_at=FromNow(_TRY_AGAIN_AFTER)):
        return None
    return Run.objects.get(pk=run_id)


def finish_hook(run_id: str) -> None:
    Run.objects.filter(pk=run_id).update(hook_at=None)
