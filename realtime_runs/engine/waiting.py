"""Waiting for child runs inside a task."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic

from asgiref.sync import sync_to_async
from django.db import InterfaceError, OperationalError, transaction

from realtime_runs.database import read, readers
from realtime_runs.engine import registry
from realtime_runs.engine.backends.base import get_backend
from realtime_runs.engine.context import ActiveRun, active_run
from realtime_runs.engine.pausing import apaused, paused
from realtime_runs.exceptions import ChildFailed, InvalidInput, RunStopped
from realtime_runs.live.feeds import RunFeed
from realtime_runs.live.follow import Subscription
from realtime_runs.live.reading import read_runs
from realtime_runs.live.snapshot import O, RealtimeRun, RunError, typed

logger = logging.getLogger("realtime_runs.engine")

_RETRY_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class RunResult(Generic[O]):
    """How a child run ended."""

    run: RealtimeRun[Any, O]

    @property
    def ok(self) -> bool:
        return self.run.is_success

    @property
    def id(self) -> str:
        return self.run.id

    @property
    def output(self) -> O:
        return self.run.output

    @property
    def error(self) -> RunError | None:
        """Why it failed; None when it did not, or was canceled."""
        return self.run.error

    def unwrap(self) -> O:
        """The output. Raises ChildFailed when the run did not complete."""
        if not self.ok:
            raise ChildFailed(self.run)
        return self.run.output


def check_can_wait(what: str) -> ActiveRun:
    """Raises NotInsideRun outside of a task, and InvalidInput where the child could never start."""
    active = active_run(what)
    if transaction.get_connection().in_atomic_block and not get_backend().executes_inline:
        raise InvalidInput(f"{what} inside a transaction would wait for ever: the child starts when it is committed.")
    return active


def wait_for(active: ActiveRun, run_ids: Sequence[str]) -> list[RunResult[Any]]:
    """Block until all runs are final. Raises RunStopped when this run is told to stop meanwhile."""
    with paused(active):
        _execute_inline(run_ids)
        while True:
            try:
                runs = read(_read, run_ids)
                unfinished = [run.id for run in runs if not run.is_completed]
                if not unfinished:
                    break
                for _ in Subscription(RunFeed(unfinished[0]), signal=active.context.signal, convert=_same):
                    pass
            except (OperationalError, InterfaceError) as error:
                _log_loss(active, error)
                active.context.signal.wait(_RETRY_SECONDS)
            if active.context.signal.is_set():
                raise RunStopped(active.run.id)
    return _results(runs, run_ids)


async def await_for(active: ActiveRun, run_ids: Sequence[str]) -> list[RunResult[Any]]:
    """The same without blocking. When this run is told to stop, it is cancelled."""
    async with apaused(active):
        if get_backend().executes_inline:
            await sync_to_async(_execute_inline)(run_ids)
            return _results(await sync_to_async(_read)(run_ids), run_ids)
        while True:
            try:
                runs = await readers.run(_read, run_ids)
                unfinished = [run.id for run in runs if not run.is_completed]
                if not unfinished:
                    break
                async for _ in Subscription(RunFeed(unfinished[0]), convert=_same):
                    pass
            except (OperationalError, InterfaceError) as error:
                _log_loss(active, error)
                await asyncio.sleep(_RETRY_SECONDS)
    return _results(runs, run_ids)


def _log_loss(active: ActiveRun, error: Exception) -> None:
    # If it takes too long, the heartbeat gives the run up, and that ends the wait.
    logger.warning("Run %s waits, and the database cannot be read; trying again: %s", active.run.id, error)


def _same(run: RealtimeRun) -> RealtimeRun:
    return run


def _execute_inline(run_ids: Sequence[str]) -> None:
    # In a test that lives in a transaction nothing is ever committed, so nothing was dispatched.
    if get_backend().executes_inline:
        get_backend().dispatch(run_ids)


def _read(run_ids: Sequence[str]) -> list[RealtimeRun]:
    return read_runs(list(dict.fromkeys(run_ids)))


def _results(runs: list[RealtimeRun], run_ids: Sequence[str]) -> list[RunResult[Any]]:
    by_id = {run.id: typed(run, registry.find(run.task_identifier)) for run in runs}
    return [RunResult(by_id[run_id]) for run_id in run_ids]
