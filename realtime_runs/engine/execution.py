"""One attempt of one run: check the payload, call the function, write how it ended."""

import asyncio
import contextvars
import logging
import threading
import traceback
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any, Final, Protocol

from realtime_runs.engine import lifecycle, pipes, registry
from realtime_runs.engine.buffer import MetadataBuffer
from realtime_runs.engine.context import ActiveRun, Lease, RunContext, Slots, Writer, activate
from realtime_runs.engine.definition import TaskDefinition
from realtime_runs.engine.hooks import run_hook
from realtime_runs.engine.outcome import result_of, start
from realtime_runs.exceptions import AbortRun, InvalidInput, LeaseLost, PayloadInvalid
from realtime_runs.live.snapshot import RunError, snapshot
from realtime_runs.models import Run
from realtime_runs.packets import Packet
from realtime_runs.statuses import RunStatus

logger = logging.getLogger("realtime_runs.engine")

_MOST_TRACEBACK: Final = 64 * 1024  # characters; the end is kept, where the error is


class Stop(Enum):
    """Why an attempt is ended from outside."""

    LOST = "the run is canceled, or is somebody else's"
    TIMED_OUT = "it ran longer than max_duration"
    HAND_BACK = "the worker is going away"


class Host(Protocol):
    """What an attempt needs from the worker that runs it."""

    @property
    def writer(self) -> Writer: ...

    @property
    def is_draining(self) -> bool: ...

    @property
    def ignores_back_off(self) -> bool: ...

    @property
    def writes_beside_tasks(self) -> bool:
        """Whether something can be written while a task has the thread."""

    def slots_for(self, task: TaskDefinition[Any, Any]) -> Slots: ...

    async def call_sync(self, fn: Callable[[], Any]) -> Any:
        """Run a sync function where it may block."""

    async def call_hook(self, fn: Callable[[], Any]) -> Any:
        """Run a sync hook where it may block; possible until the very end of the process."""

    def look_in(self, seconds: float) -> None:
        """A run of ours is ready again after so long."""


def describe(error: BaseException) -> RunError:
    """The error as it is stored. Never raises, whatever the exception's own methods do."""
    try:
        message = str(error)
    except Exception:
        message = "(its __str__ raised)"
    try:
        stack = "".join(traceback.format_exception(error))
    except Exception:
        stack = ""
    return RunError(type(error).__name__, message[-_MOST_TRACEBACK:], stack[-_MOST_TRACEBACK:])


class Execution:
    """Runs a claimed run. `stop` may be called at any time, on the event loop."""

    def __init__(self, run: Run, host: Host) -> None:
        self.lease = Lease(run.id, run.attempt, run.lease_token)
        self.signal = threading.Event()
        self._host = host
        self.task = registry.get(run.task)
        self._run = snapshot(run, self.task)
        self._slots = host.slots_for(self.task)
        self._stop: Stop | None = None
        self._user_task: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_started = 0.0
        self._seconds_left = run.max_duration
        self._waits = 0
        self._wait_lock = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._active = ActiveRun(
            context=RunContext(self._run, run.attempt, run.parent_id, self.signal),
            lease=self.lease,
            writer=host.writer,
            metadata=MetadataBuffer(self._run, self.lease, host.writer, self._later),
            loop=self._loop,
            begin_wait=self._begin_wait,
            end_wait=self._end_wait,
        )

    def stop(self, why: Stop) -> None:
        """End the attempt: the signal is set and an async function is cancelled. The first reason counts."""
        if self._stop is None:
            self._stop = why
            self.signal.set()
            if self._user_task is not None and self.task.is_async:
                self._user_task.cancel()

    async def run(self) -> None:
        """Until the function has really ended. Raises nothing but cancellation of the worker itself."""
        try:
            await self._attempt()
        except LeaseLost:
            logger.info("Run %s is not ours any more; what attempt %d did is dropped.", *self._name())
        except Exception:
            # The outcome could not be written. The lease will end, and the run will be tried again.
            logger.exception("The outcome of run %s, attempt %d, could not be written.", *self._name())
        finally:
            self._stop_timer()

    async def _attempt(self) -> None:
        if self._run.attempt_count == 1:
            await run_hook(self.task, "on_start", self._run, self._host.call_hook)
        try:
            payload = self.task.payload(self._run.payload_packet)
        except PayloadInvalid as error:
            # No further attempt: the payload will not get better.
            reason = describe(error)
            return await self._write(lambda: lifecycle.fail(self.lease, reason))
        except Exception as error:  # from the user's own validators
            return await self._fail(error)
        self._start_timer()
        packet: Packet | None = None
        failure: BaseException | None = None
        try:
            packet = self.task.pack_output(await self._call(payload))
        except BaseException as error:  # also SystemExit and the like: the function asks to leave, the worker stays
            failure = error
        self._stop_timer()
        if self._stop in (Stop.LOST, Stop.TIMED_OUT):  # written by whoever took the lease, or when the time was up
            return None
        if packet is not None:
            try:
                await self._active.metadata.aflush()
                return await self._write(lambda: lifecycle.complete(self.lease, packet))
            except InvalidInput as error:  # metadata that was refused: the function should know, and cannot any more
                failure = error
        if self._stop is Stop.HAND_BACK or self._host.is_draining:
            # Also what failed by itself meanwhile: while a process ends, much fails that is not the task's fault.
            return await self._write(lambda: lifecycle.hand_back([self.lease]))
        return await self._fail(failure or RuntimeError("The task ended without a result."))

    async def _flush_for_end(self) -> None:
        """Write what the attempt has said, before it ends badly; an error of that does not change the end."""
        try:
            await self._active.metadata.aflush()
        except LeaseLost:
            raise
        except Exception:
            logger.exception("Metadata of run %s, attempt %d, could not be written.", *self._name())

    async def _fail(self, failure: BaseException) -> None:
        await self._flush_for_end()
        error = describe(failure)
        logger.warning(
            "Run %s of task %r failed in attempt %d: %s: %s",
            self._run.id,
            self.task.id,
            self.lease.attempt,
            error.name,
            error.message,
        )
        if isinstance(failure, AbortRun) or self.lease.attempt >= self._run.max_attempts:
            await self._write(lambda: lifecycle.fail(self.lease, error))
        else:
            seconds = 0 if self._host.ignores_back_off else self.task.retry.seconds_after(self.lease.attempt)
            await self._write(lambda: lifecycle.retry(self.lease, error, seconds))
            self._host.look_in(seconds)

    async def _call(self, payload: Any) -> Any:
        """Call the function inside its run, which its own tasks and threads inherit. Raises what it raised."""
        args, kwargs = self.task.arguments(payload, self._active.context)
        context = contextvars.copy_context()
        context.run(activate, self._active)
        if self.task.is_async:
            self._user_task = start(self._with_pipes(self.task.function(*args, **kwargs)), context)
        else:  # not in the same context: a thread that does not end would keep it, and the loop could not enter it
            call = self._host.call_sync(lambda: context.run(self.task.function, *args, **kwargs))
            self._user_task = start(self._with_pipes(call))
        if self._stop is not None and self.task.is_async:
            self._user_task.cancel()
        await asyncio.wait([self._user_task])
        result, error = result_of(self._user_task)
        if error is not None:
            raise error
        return result

    async def _with_pipes(self, call: Awaitable[Any]) -> Any:
        """What the function has begun to pipe is a part of it."""
        try:
            result = await call
            await pipes.drain(self._active.pipes)
        except BaseException:
            await pipes.stop(self._active.pipes)
            raise
        finally:
            for end in self._active.at_end:
                end()
        return result

    async def _write(self, write: Callable[[], None]) -> None:
        await self._host.writer.awrite(write)

    # -- max_duration: executing time, waiting not counted ------------------------------------------------------------

    def _start_timer(self) -> None:
        if self._seconds_left is not None:
            self._timer_started = self._loop.time()
            self._timer = self._loop.call_later(self._seconds_left, self._time_is_up)

    def _stop_timer(self) -> None:
        if self._timer is not None and self._seconds_left is not None:
            self._timer.cancel()
            self._timer = None
            self._seconds_left -= self._loop.time() - self._timer_started

    def _time_is_up(self) -> None:
        if self._stop is None:
            self.stop(Stop.TIMED_OUT)
            self._loop.create_task(self._write_time_out())  # now: a thread may go on for long

    async def _write_time_out(self) -> None:
        error = RunError(
            "TimedOut", f"The run executed for longer than its max_duration of {self._run.max_duration:g} s."
        )
        try:
            await self._flush_for_end()
            await self._write(lambda: lifecycle.fail(self.lease, error, status=RunStatus.TIMED_OUT))
        except LeaseLost:
            pass
        except Exception:
            logger.exception("The time-out of run %s, attempt %d, could not be written.", *self._name())

    # -- waiting ------------------------------------------------------------------------------------------------------

    async def _begin_wait(self) -> None:
        """The first of several waits at once pauses the run."""
        async with self._wait_lock:
            if self._waits == 0:
                await self._active.metadata.aflush()
                await self._write(lambda: lifecycle.wait(self.lease))
                self._stop_timer()
                self._slots.release()
            self._waits += 1

    async def _end_wait(self) -> None:
        """The last one takes a slot and goes on."""
        async with self._wait_lock:
            self._waits -= 1
            if self._waits == 0:
                await self._slots.acquire()
                self._start_timer()
                if self._stop is None:
                    await self._write(lambda: lifecycle.resume(self.lease))

    def _later(self, seconds: float, callback: Callable[[], None]) -> None:
        if self._host.writes_beside_tasks:  # else the end of the run, or a flush by the task itself, writes it
            self._loop.call_soon_threadsafe(self._loop.call_later, seconds, callback)

    def _name(self) -> tuple[str, int]:
        return self._run.id, self.lease.attempt
