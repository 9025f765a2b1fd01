"""For tests: runs are executed where they are triggered, before `trigger` returns, or at the commit."""

from collections.abc import Callable, Sequence
from typing import Any

from asgiref.sync import async_to_sync, sync_to_async

from realtime_runs.engine import hooks, lifecycle, registry
from realtime_runs.engine.backends.base import Backend
from realtime_runs.engine.definition import TaskDefinition
from realtime_runs.engine.execution import Execution
from realtime_runs.engine.slots import NoSlots
from realtime_runs.engine.writer import InlineWriter
from realtime_runs.models import Run


class ImmediateBackend(Backend):
    """Failed attempts are tried again at once; delayed runs stay DELAYED."""

    executes_inline = True

    def dispatch(self, run_ids: Sequence[str]) -> None:
        for run_id in run_ids:
            execute(run_id)


def execute(run_id: str) -> None:
    """Execute a ready run to its end, in this thread and on this connection. Does nothing when somebody else has it."""
    while runs := lifecycle.claim(registry.ids(), 1, run_ids=[run_id]):
        async_to_sync(_execute)(runs[0])
    if run := hooks.claim_hook(run_id):
        async_to_sync(hooks.run_final_hook)(run, _InlineHost().call_sync)
        hooks.finish_hook(run_id)


async def _execute(run: Run) -> None:
    await Execution(run, _InlineHost()).run()


class _InlineHost:
    """Where an attempt runs when there is no worker."""

    is_draining = False
    ignores_back_off = True
    writes_beside_tasks = False

    def __init__(self) -> None:
        self.writer = InlineWriter()

    def slots_for(self, task: TaskDefinition[Any, Any]) -> NoSlots:
        return NoSlots()

    async def call_sync(self, fn: Callable[[], Any]) -> Any:
        return await sync_to_async(fn)()

    async def call_hook(self, fn: Callable[[], Any]) -> Any:
        return await sync_to_async(fn)()

    def look_in(self, seconds: float) -> None:
        """`execute` looks by itself."""
