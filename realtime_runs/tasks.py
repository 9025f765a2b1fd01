"""Declaring tasks and triggering them. `trigger` by id is for callers that do not import the task.

Every function that touches the database has an async twin: `a` + its name.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Concatenate, Generic, Protocol, Unpack, cast, overload

from asgiref.sync import sync_to_async
from django.core.exceptions import ImproperlyConfigured

from realtime_runs.durations import Duration
from realtime_runs.engine import registry, triggering
from realtime_runs.engine.context import RunContext, current_run
from realtime_runs.engine.definition import Hook, TaskDefinition
from realtime_runs.engine.options import TriggerOptions
from realtime_runs.engine.retry import Retry
from realtime_runs.engine.triggering import BatchHandle, Request, RunHandle
from realtime_runs.engine.waiting import RunResult, await_for, check_can_wait, wait_for
from realtime_runs.exceptions import AbortRun
from realtime_runs.live.snapshot import O, P

__all__ = [
    "AbortRun",
    "BatchHandle",
    "Retry",
    "RunContext",
    "RunHandle",
    "RunResult",
    "Task",
    "TriggerOptions",
    "abatch_trigger",
    "atrigger",
    "atrigger_and_wait",
    "batch_trigger",
    "current_run",
    "task",
    "trigger",
    "trigger_and_wait",
]


class Task(TaskDefinition[P, O], Generic[P, O]):
    """A declared task. Calling it calls the function, as a test would."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def trigger(self, payload: P | dict[str, Any] | None = None, **options: Unpack[TriggerOptions]) -> RunHandle[P, O]:
        """Create a run. Inside `atomic()` the handle is usable at once, the run starts on commit, and a rollback leaves
        no trace.

        Options: see `TriggerOptions`. Raises PayloadInvalid (with field errors), NotJson, TooLarge or InvalidOption;
        then no run was made.
        """
        return cast("RunHandle[P, O]", trigger(self.id, payload, **options))

    async def atrigger(
        self, payload: P | dict[str, Any] | None = None, **options: Unpack[TriggerOptions]
    ) -> RunHandle[P, O]:
        return cast("RunHandle[P, O]", await atrigger(self.id, payload, **options))

    def batch_trigger(self, payloads: Iterable[Any], **options: Unpack[TriggerOptions]) -> BatchHandle:
        """Create a run for each payload, at most 1,000, all or none, with the same options."""
        return batch_trigger(self.id, payloads, **options)

    async def abatch_trigger(self, payloads: Iterable[Any], **options: Unpack[TriggerOptions]) -> BatchHandle:
        return await abatch_trigger(self.id, payloads, **options)

    def trigger_and_wait(
        self, payload: P | dict[str, Any] | None = None, **options: Unpack[TriggerOptions]
    ) -> RunResult[O]:
        """Inside a task: trigger a child run and wait for its end; this run is WAITING meanwhile.

        A child's failure does not raise: look at `.ok`, or call `.unwrap()`. When this run is tried again, the child is
        triggered again; an `idempotency_key` makes it the same one. Raises NotInsideRun outside of a task, InvalidInput
        inside a transaction.
        """
        return cast("RunResult[O]", trigger_and_wait(self.id, payload, **options))

    async def atrigger_and_wait(
        self, payload: P | dict[str, Any] | None = None, **options: Unpack[TriggerOptions]
    ) -> RunResult[O]:
        return cast("RunResult[O]", await atrigger_and_wait(self.id, payload, **options))

    def batch_trigger_and_wait(self, payloads: Iterable[Any], **options: Unpack[TriggerOptions]) -> list[RunResult[O]]:
        """Inside a task: trigger a batch of children and wait for all. Results are in the order of the payloads."""
        active = check_can_wait("batch_trigger_and_wait()")
        requests = _requests(self.id, payloads, options, "batchTriggerAndWait")
        return wait_for(active, triggering.trigger_batch(requests).run_ids)

    async def abatch_trigger_and_wait(
        self, payloads: Iterable[Any], **options: Unpack[TriggerOptions]
    ) -> list[RunResult[O]]:
        active = await sync_to_async(check_can_wait)("batch_trigger_and_wait()")
        requests = await sync_to_async(_requests)(self.id, payloads, options, "batchTriggerAndWait")
        handle = await sync_to_async(triggering.trigger_batch)(requests)
        return await await_for(active, handle.run_ids)

    def on_start(self, hook: Hook) -> Hook:
        """Decorator: called with the run before its first attempt."""
        self.add_hook("on_start", hook)
        return hook

    def on_success(self, hook: Hook) -> Hook:
        """Decorator: called with the run after it COMPLETED. Like all hooks of an end: at least once, by some worker,
        soon after.
        """
        self.add_hook("on_success", hook)
        return hook

    def on_failure(self, hook: Hook) -> Hook:
        """Decorator: called with the run after it FAILED, CRASHED, EXPIRED, TIMED_OUT or was a SYSTEM_FAILURE."""
        self.add_hook("on_failure", hook)
        return hook

    def on_cancel(self, hook: Hook) -> Hook:
        """Decorator: called with the run after it was CANCELED."""
        self.add_hook("on_cancel", hook)
        return hook


class TaskDecorator(Protocol):
    @overload
    def __call__(self, function: Callable[[], Awaitable[O]], /) -> Task[None, O]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[P, ...], Awaitable[O]], /) -> Task[P, O]: ...
    @overload
    def __call__(self, function: Callable[[], O], /) -> Task[None, O]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[P, ...], O], /) -> Task[P, O]: ...


def task(
    *,
    id: str,
    queue: str = "default",
    max_attempts: int | None = None,
    retry: Retry | None = None,
    ttl: Duration | None = None,
    max_duration: Duration | None = None,
) -> TaskDecorator:
    """Declare a function, sync or async, as a task.

    The first parameter is the payload; its annotation is checked by pydantic when triggered and before each attempt.
    The return annotation checks the output. A parameter `ctx` gets the RunContext. `id` is the name everywhere; a
    second task with it is an error. `retry`: the back-off (`max_attempts` is a shortcut for its field). `ttl`: EXPIRED
    when not started in time. `max_duration`: TIMED_OUT after so much executing. Raises ImproperlyConfigured, or
    InvalidOption for a bad duration or number.
    """
    if retry is None:
        retry = Retry(max_attempts=max_attempts)
    elif max_attempts is not None:
        raise ImproperlyConfigured(f"Task {id!r}: give max_attempts inside of Retry(...), or without one.")
    if not id or len(id) > 255:
        raise ImproperlyConfigured(f"A task id has 1 to 255 characters, not {len(id)}.")

    def decorate(function: Callable[..., Any], /) -> Task[Any, Any]:
        definition: Task[Any, Any] = Task(function, id=id, queue=queue, retry=retry, ttl=ttl, max_duration=max_duration)
        registry.register(definition)
        return definition

    return cast(TaskDecorator, decorate)


def trigger(task_id: str, payload: Any = None, **options: Unpack[TriggerOptions]) -> RunHandle[Any, Any]:
    """Create a run of a task by id: see `Task.trigger`. Raises UnknownTask as well."""
    return triggering.trigger(Request.check(task_id, payload, options))


atrigger = sync_to_async(trigger)


def batch_trigger(task_id: str, payloads: Iterable[Any], **options: Unpack[TriggerOptions]) -> BatchHandle:
    """Create a run for each payload: see `Task.batch_trigger`."""
    return triggering.trigger_batch(_requests(task_id, payloads, options, "batchTrigger"))


abatch_trigger = sync_to_async(batch_trigger)


def trigger_and_wait(task_id: str, payload: Any = None, **options: Unpack[TriggerOptions]) -> RunResult[Any]:
    """Inside a task: see `Task.trigger_and_wait`."""
    active = check_can_wait("trigger_and_wait()")
    handle = triggering.trigger(Request.check(task_id, payload, options, "triggerAndWait"))
    return wait_for(active, [handle.id])[0]


async def atrigger_and_wait(task_id: str, payload: Any = None, **options: Unpack[TriggerOptions]) -> RunResult[Any]:
    active = await sync_to_async(check_can_wait)("trigger_and_wait()")
    request = await sync_to_async(Request.check)(task_id, payload, options, "triggerAndWait")
    handle = await sync_to_async(triggering.trigger)(request)
    return (await await_for(active, [handle.id]))[0]


def _requests(task_id: str, payloads: Iterable[Any], options: TriggerOptions, how: str) -> list[Request]:
    given = list(payloads)
    triggering.check_batch_size(len(given))
    return [Request.check(task_id, payload, options, how) for payload in given]
