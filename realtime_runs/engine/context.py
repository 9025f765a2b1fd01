"""What a running task knows of itself."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from django.core.exceptions import SynchronousOnlyOperation

from realtime_runs.exceptions import NotInsideRun
from realtime_runs.live.snapshot import RealtimeRun

if TYPE_CHECKING:
    from realtime_runs.engine.buffer import MetadataBuffer
    from realtime_runs.engine.pipes import AnyPipe

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RunContext:
    """Given to a task that has a parameter for it.

    `run`: the run as it was when this attempt began. `attempt`: from 1. `parent`: the id of the run that triggered this
    one, or None. `signal`: set when the run is to stop (canceled, timed out, its worker is going away). Async tasks are
    cancelled as well; sync tasks must look at it, because a thread cannot be stopped from outside.
    """

    run: RealtimeRun
    attempt: int
    parent: str | None
    signal: threading.Event


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write for a run: holds while the row still has this attempt and token."""

    run_id: str
    attempt: int
    token: str


class Writer(Protocol):
    """How a worker writes: in the group commit of its process, or in the caller's own thread (tests)."""

    def write(self, fn: Callable[[], T]) -> T:
        """From sync code: block until it is committed."""

    def awrite(self, fn: Callable[[], T]) -> Awaitable[T]:
        """From async code: wait until it is committed."""


class Slots(Protocol):
    """Places for runs that execute at once. A run that waits gives its place to another one.

    Only on the worker's loop.
    """

    def release(self) -> None: ...

    async def acquire(self) -> None: ...


@dataclass(eq=False)
class ActiveRun:
    """An attempt that is going on in this process."""

    context: RunContext
    lease: Lease
    writer: Writer
    metadata: "MetadataBuffer"
    loop: asyncio.AbstractEventLoop
    begin_wait: Callable[[], Coroutine[Any, Any, None]]  # on the loop: WAITING, without slot, clock of max_duration off
    end_wait: Callable[[], Coroutine[Any, Any, None]]  # on the loop: EXECUTING again, once there is a slot
    pipes: "list[AnyPipe[Any]]" = field(default_factory=list)  # all that it began
    at_end: list[Callable[[], object]] = field(default_factory=list)  # called when the function has ended

    @property
    def run(self) -> RealtimeRun:
        return self.context.run


_active: Final[ContextVar[ActiveRun | None]] = ContextVar("realtime_runs_active", default=None)


def activate(active: ActiveRun) -> None:
    _active.set(active)


def find_active() -> ActiveRun | None:
    return _active.get()


def active_run(what: str) -> ActiveRun:
    """The attempt this code runs in. Raises NotInsideRun, which says that `what` needs one."""
    active = _active.get()
    if active is None:
        raise NotInsideRun(what)
    return active


def current_run() -> RunContext:
    """The context of the running task, anywhere inside of it. Raises NotInsideRun elsewhere."""
    return active_run("current_run()").context


def is_on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def refuse_to_block(what: str, instead: str) -> None:
    """Raise SynchronousOnlyOperation where an event loop runs, which a blocking call would stop."""
    if is_on_event_loop():
        raise SynchronousOnlyOperation(f"{what} blocks; use `{instead}` in async code.")
