"""The engine: one event loop that claims runs and executes hundreds of them at once.

The same object works inside a server process (embedded backend), as a process of its own (`runs_worker`), and any
number of them share a database. Nothing here is the truth: a worker that dies loses nothing but its leases.
"""

import asyncio
import logging
import random
import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.db import connections

from realtime_runs.conf import app_settings
from realtime_runs.database import DatabaseThreads
from realtime_runs.engine import hooks, lifecycle, registry
from realtime_runs.engine.context import Lease
from realtime_runs.engine.definition import TaskDefinition
from realtime_runs.engine.execution import Execution, Stop
from realtime_runs.engine.heartbeat import Heartbeat
from realtime_runs.engine.slots import CountedSlots
from realtime_runs.engine.upkeep import upkeep
from realtime_runs.engine.writer import process_writer
from realtime_runs.live.hub import hub
from realtime_runs.live.listeners import WorkListener
from realtime_runs.live.topics import WORK
from realtime_runs.models import Run

logger = logging.getLogger("realtime_runs.engine")

_MOST_PER_CLAIM: Final = 100
_GATHER_SECONDS: Final = 0.005
_LAST_WORDS_SECONDS: Final = 2.0  # for runs that are told to stop at the end of the grace


class Worker:
    """Call `run` on an event loop. `stop` may be called from any thread, or from a signal handler."""

    ignores_back_off = False
    writes_beside_tasks = True

    def __init__(self) -> None:
        self.writer = process_writer()
        self.is_draining = False
        #: False when functions did not stop: their runs are handed back, but their threads last as long as the process.
        self.is_clean = True
        self._async_slots = CountedSlots(app_settings.CONCURRENCY)
        self._sync_slots = CountedSlots(app_settings.SYNC_CONCURRENCY)
        self._sync_threads = DatabaseThreads("realtime-runs-task", threads=10_000)  # bounded by the slots
        self._database = DatabaseThreads("realtime-runs-worker", threads=2, kept=1)
        self._hook_threads = DatabaseThreads("realtime-runs-hook", threads=4, kept=1)
        self._executions: dict[Execution, asyncio.Task[None]] = {}
        self._heartbeat = Heartbeat(self._leases, self._lost_from_thread)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._has_hooks = asyncio.Event()
        self._stopped = threading.Event()

    # -- from other threads -------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Begin to drain: no new runs; those that run get SHUTDOWN_GRACE_SECONDS; what is left is handed back."""
        self.is_draining = True
        if self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(self._wake.set)
            except RuntimeError:  # the loop is closed: it is over already
                logger.debug("The worker has stopped before.")

    def wait(self, seconds: float) -> bool:
        """Until the worker has stopped."""
        return self._stopped.wait(seconds)

    # -- on the loop --------------------------------------------------------------------------------------------------

    async def run(self, *, ready: Callable[[], None] = lambda: None) -> None:
        """Work until `stop` was called and everything is drained."""
        self._loop = asyncio.get_running_loop()
        self.writer.start()
        self._database.start()
        self._hook_threads.start()
        listener = WorkListener(WORK, self._hint_from_thread)
        self._heartbeat.start()
        tasks: list[asyncio.Task[Any]] = []
        # Our runs' ORM calls get a thread of their own and do not queue behind those of the server.
        orm_thread = AsyncExitStack()
        try:
            await orm_thread.enter_async_context(ThreadSensitiveContext())
            await asyncio.wrap_future(hub.join(listener))
            tasks = [asyncio.create_task(self._tick()), asyncio.create_task(self._keep_up())]
            tasks.append(asyncio.create_task(self._run_hooks()))
            ready()
            await self._work()
            await self._drain()
            if await self._orm_thread_is_free():
                await orm_thread.aclose()
        finally:
            hub.leave(listener)
            self._heartbeat.stop()
            for task in tasks:
                task.cancel()
            self._stopped.set()

    async def _work(self) -> None:
        loop, last = asyncio.get_running_loop(), 0.0
        while not self.is_draining:
            self._wake.clear()
            try:
                count, has_more = await self._claim()
                last = loop.time() if count else last
            except Exception:
                logger.warning("Could not look for work; trying again.", exc_info=True)
                has_more = False
                # Before the ORM calls of the next runs, which queue behind it: their connection may be lost too.
                orm_calls = asyncio.create_task(sync_to_async(connections.close_all)())
                orm_calls.add_done_callback(lambda call: call.cancelled() or call.exception())
            if not has_more:
                try:
                    await asyncio.wait_for(self._wake.wait(), app_settings.POLL_SECONDS)
                except TimeoutError:
                    await self._look_at_leases()
            # The first run of a while is claimed at once; of many that come one by one, those of a moment together.
            if (pause := last + _GATHER_SECONDS - loop.time()) > 0:
                await asyncio.sleep(pause)

    async def _claim(self) -> tuple[int, bool]:
        """Take as many runs as there are free slots. How many, and whether there may be more to take at once."""
        count, has_more = 0, False
        for slots, is_async in ((self._async_slots, True), (self._sync_slots, False)):
            task_ids = registry.ids(is_async=is_async)
            limit = min(slots.free, _MOST_PER_CLAIM)
            if not task_ids or not limit:
                continue
            runs = await self._database.run(_claim, task_ids, limit)
            for run in runs:
                slots.take()
                self._start(run)
            count += len(runs)
            has_more = has_more or len(runs) == limit
        return count, has_more and not self.is_draining

    def _start(self, run: Run) -> None:
        execution = Execution(run, self)
        task = asyncio.create_task(execution.run())
        self._executions[execution] = task
        task.add_done_callback(lambda _: self._ended(execution))

    def _ended(self, execution: Execution) -> None:
        del self._executions[execution]
        slots = self.slots_for(execution.task)
        was_full = not slots.free
        slots.release()
        if was_full:
            # Runs end in groups, those that were committed together; their slots are filled by one claim.
            asyncio.get_running_loop().call_later(_GATHER_SECONDS, self._wake.set)

    def slots_for(self, task: TaskDefinition[Any, Any]) -> CountedSlots:
        return self._async_slots if task.is_async else self._sync_slots

    async def call_sync(self, fn: Callable[[], Any]) -> Any:
        return await self._sync_threads.run(fn)

    async def call_hook(self, fn: Callable[[], Any]) -> Any:
        return await self._hook_threads.run(fn)

    def look_in(self, seconds: float) -> None:
        # A little late rather than early: the database's clock decides, and has milliseconds on SQLite.
        asyncio.get_running_loop().call_later(seconds + 0.002, self._wake.set)

    # -- hints and lost leases ----------------------------------------------------------------------------------------

    def _hint_from_thread(self, run_ids: list[str]) -> None:
        if self._loop is not None:
            self._call(self._hint, run_ids)

    def _hint(self, run_ids: list[str]) -> None:
        self._wake.set()
        self._has_hooks.set()
        ours = {execution.lease.run_id for execution in self._executions}
        if not ours.isdisjoint(run_ids):
            asyncio.ensure_future(self._look_at_leases())  # noqa: RUF006 it reports its own errors

    def _leases(self) -> list[Lease]:
        return [execution.lease for execution in list(self._executions)]

    async def _look_at_leases(self) -> None:
        """Stop what was canceled or taken from us; the heartbeat would find it too, later."""
        leases = self._leases()
        if not leases:
            return
        try:
            ours = await self._database.run(lifecycle.still_ours, leases)
        except Exception as error:
            logger.warning("Could not look after the leases; trying again: %s", error)
            return
        self._lost([lease for lease in leases if lease.run_id not in ours])

    def _lost_from_thread(self, leases: Sequence[Lease]) -> None:
        self._call(self._lost, leases)

    def _lost(self, leases: Collection[Lease]) -> None:
        for execution in list(self._executions):
            if execution.lease in leases:
                execution.stop(Stop.LOST)

    def _call(self, fn: Callable[..., None], *args: Any) -> None:
        try:
            assert self._loop is not None  # noqa: S101 only called while running
            self._loop.call_soon_threadsafe(fn, *args)
        except RuntimeError:  # closed meanwhile
            logger.debug("A hint came after the worker had stopped.")

    # -- what goes on beside ------------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        while True:
            self._heartbeat.tick()
            await asyncio.sleep(0.25)

    async def _keep_up(self) -> None:
        while True:
            try:
                await self._database.run(upkeep, registry.ids())
            except Exception:
                logger.warning("Upkeep failed; trying again.", exc_info=True)
            # Apart from other workers, which would only look at the same rows.
            await asyncio.sleep(app_settings.POLL_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311 no secret

    async def _run_hooks(self) -> None:
        with_hooks = [task.id for task in registry.all_tasks() if task.hooks.keys() - {"on_start"}]
        while with_hooks:
            self._has_hooks.clear()
            try:
                for run_id in await self._database.run(hooks.due_hooks, with_hooks, _MOST_PER_CLAIM):
                    if run := await self._database.run(hooks.claim_hook, run_id):
                        await hooks.run_final_hook(run, self.call_hook)
                        await self._database.run(hooks.finish_hook, run_id)
            except Exception:
                logger.warning("Hooks could not be run; trying again.", exc_info=True)
            try:
                await asyncio.wait_for(self._has_hooks.wait(), app_settings.POLL_SECONDS)
            except TimeoutError:
                continue

    # -- the end ------------------------------------------------------------------------------------------------------

    async def _drain(self) -> None:
        if self._executions:
            logger.info("Draining: %d runs get %g s.", len(self._executions), app_settings.SHUTDOWN_GRACE_SECONDS)
            await asyncio.wait(self._executions.values(), timeout=app_settings.SHUTDOWN_GRACE_SECONDS)
        for execution in list(self._executions):
            execution.stop(Stop.HAND_BACK)
        if self._executions:
            await asyncio.wait(self._executions.values(), timeout=_LAST_WORDS_SECONDS)
        if leases := self._leases():
            # Functions that do not listen. Whatever they still write is refused, and the process is about to end.
            self.is_clean = False
            logger.warning("%d runs did not stop; they go back to the queue.", len(leases))
            await self.writer.awrite(lambda: lifecycle.hand_back(leases))

    async def _orm_thread_is_free(self) -> bool:
        """Close what our runs' ORM calls opened, unless one of them, called by an async function, does not end."""
        try:
            await asyncio.wait_for(sync_to_async(connections.close_all)(), 1)
        except TimeoutError:
            self.is_clean = False
        except RuntimeError:  # while the interpreter shuts down, the thread is gone already
            return False
        return self.is_clean


def _claim(task_ids: Sequence[str], limit: int) -> list[Run]:
    # Look first: an idle worker should not queue for SQLite's write lock.
    if not lifecycle.has_ready(task_ids):
        return []
    return lifecycle.claim(task_ids, limit)
