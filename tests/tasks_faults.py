"""Tasks of tests/faults. What a task did is a line in its log, appended by whatever process ran it.

`task` takes them all by `import *`, so helpers have a leading underscore.
"""

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

from asgiref.sync import sync_to_async
from pydantic import BaseModel, field_validator

from realtime_runs import metadata, tags
from realtime_runs.exceptions import RealtimeRunsError
from realtime_runs.models import Run
from realtime_runs.runs import RealtimeRun
from realtime_runs.tasks import Retry, RunContext, task

_QUICK = Retry(max_attempts=3, min_seconds=0.01, max_seconds=0.05)


class _Work(BaseModel):
    """`log`: a file for lines. `gate`: the task goes on when the file <gate>-<attempt> exists."""

    log: str
    gate: str = ""
    pause: float = 0

    def note(self, line: str) -> None:
        file = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, f"{line}\n".encode())
        finally:
            os.close(file)

    def is_open(self, number: int) -> bool:
        return Path(f"{self.gate}-{number}").exists()

    async def opened(self, number: int) -> None:
        while not self.is_open(number):
            await asyncio.sleep(0.02)

    def wait_deaf(self, number: int) -> None:
        """As most sync code does: without a look at `ctx.signal`."""
        while not self.is_open(number):
            time.sleep(0.02)


@task(id="f-note", max_attempts=1)
async def f_note(payload: _Work, ctx: RunContext) -> int:
    payload.note(ctx.run.id)
    return os.getpid()


@task(id="f-note-sync", max_attempts=1)
def f_note_sync(payload: _Work, ctx: RunContext) -> int:
    payload.note(ctx.run.id)
    return os.getpid()


@task(id="f-gate", retry=_QUICK)
async def f_gate(payload: _Work, ctx: RunContext) -> int:
    """The number of the attempt that got through the gate."""
    payload.note(f"began {ctx.attempt}")
    try:
        await payload.opened(ctx.attempt)
        await asyncio.sleep(payload.pause)
    except asyncio.CancelledError:
        payload.note(f"cancelled {ctx.attempt}")
        raise
    finally:
        payload.note(f"went {ctx.attempt}")
    return ctx.attempt


@task(id="f-gate-deaf", retry=_QUICK)
def f_gate_deaf(payload: _Work, ctx: RunContext) -> int:
    payload.note(f"began {ctx.attempt}")
    payload.wait_deaf(ctx.attempt)
    payload.note(f"ended {ctx.attempt}")
    return ctx.attempt


@task(id="f-gate-deaf-in-async", retry=_QUICK)
async def f_gate_deaf_in_async(payload: _Work, ctx: RunContext) -> int:
    payload.note(f"began {ctx.attempt}")
    await sync_to_async(payload.wait_deaf)(ctx.attempt)
    return ctx.attempt


@task(id="f-gate-listening", retry=_QUICK)
def f_gate_listening(payload: _Work, ctx: RunContext) -> int:
    payload.note(f"began {ctx.attempt}")
    while not payload.is_open(ctx.attempt):
        if ctx.signal.wait(0.02):
            payload.note(f"told to stop {ctx.attempt}")
            raise RuntimeError("told to stop")
    return ctx.attempt


@task(id="f-pause", max_attempts=10)
async def f_pause(payload: _Work, ctx: RunContext) -> int:
    await asyncio.sleep(payload.pause)
    return ctx.attempt


@task(id="f-poison", max_attempts=2)
async def f_poison(payload: _Work, ctx: RunContext) -> None:
    payload.note(f"began {ctx.attempt}")
    os._exit(137)


def _attempt_write(payload: _Work, name: str, write: Any) -> None:
    try:
        write()
    except RealtimeRunsError as error:
        payload.note(f"{name}: {type(error).__name__}")
    else:
        payload.note(f"{name}: done")


@task(id="f-zombie", retry=_QUICK)
def f_zombie(payload: _Work, ctx: RunContext) -> str:
    """Behind its gate, the first attempt writes in every way that a task has."""
    payload.note(f"began {ctx.attempt}")
    payload.wait_deaf(ctx.attempt)
    if ctx.attempt == 1:
        metadata.set("by", "zombie")
        metadata.root.set("by", "zombie")
        _attempt_write(payload, "metadata", metadata.flush)
        _attempt_write(payload, "wait", lambda: f_note_sync.trigger_and_wait(payload))
        payload.note("wrote")
    return f"attempt {ctx.attempt}"


@task(id="f-child", max_attempts=5)
async def f_child(payload: _Work, ctx: RunContext) -> int:
    """Behind the gate of number 0, whichever attempt it is."""
    payload.note("child began")
    await payload.opened(0)
    return ctx.attempt


@task(id="f-child-sync", max_attempts=5)
def f_child_sync(payload: _Work, ctx: RunContext) -> int:
    payload.note("child began")
    payload.wait_deaf(0)
    return ctx.attempt


@task(id="f-waiting", retry=_QUICK)
async def f_waiting(payload: _Work, ctx: RunContext) -> int:
    payload.note(f"waits {ctx.attempt}")
    try:
        result = await f_child.atrigger_and_wait(payload)
    except (asyncio.CancelledError, RealtimeRunsError):  # the latter when the child was canceled first
        payload.note(f"stopped waiting {ctx.attempt}")
        raise
    return result.unwrap()


@task(id="f-waiting-sync", retry=_QUICK)
def f_waiting_sync(payload: _Work, ctx: RunContext) -> int:
    payload.note(f"waits {ctx.attempt}")
    return f_child_sync.trigger_and_wait(payload).unwrap()


@task(id="f-two-waits", max_attempts=1)
async def f_two_waits(payload: _Work) -> list[int]:
    """Waits for two children at once."""
    results = await asyncio.gather(f_note.atrigger_and_wait(payload), f_note.atrigger_and_wait(payload))
    return [result.unwrap() for result in results]


@task(id="f-parent", max_attempts=1)
async def f_parent(payload: _Work) -> None:
    """Has a child and a grandchild, all of them behind a gate."""
    await f_waiting.atrigger_and_wait(payload)


@task(id="f-swallow", max_attempts=1)
async def f_swallow(payload: _Work) -> str:
    payload.note("began")
    try:
        await payload.opened(1)
    except asyncio.CancelledError:
        payload.note("cancelled")
    metadata.set("after", "cancel")
    try:
        await metadata.aflush()
    except RealtimeRunsError as error:
        payload.note(type(error).__name__)
    payload.note("ended")
    return "went on"


@task(id="f-tags-late", max_attempts=1)
def f_tags_late(payload: _Work) -> None:
    payload.note("began")
    payload.wait_deaf(1)
    _attempt_write(payload, "tags", lambda: tags.add("late"))


@task(id="f-says-last-words", max_attempts=1)
async def f_says_last_words(payload: _Work) -> None:
    metadata.set("step", 1)
    await asyncio.sleep(0.1)  # it is written by now
    metadata.set("step", 2)
    await payload.opened(1)


@task(id="f-blocks-loop", max_attempts=1)
async def f_blocks_loop(payload: _Work) -> str:
    time.sleep(payload.pause)
    return "awake again"


_EXITS: dict[str, type[BaseException]] = {
    error.__name__: error for error in (SystemExit, KeyboardInterrupt, StopIteration, asyncio.CancelledError)
}


@task(id="f-raise", max_attempts=1)
async def f_raise(payload: str) -> None:
    raise _EXITS[payload]


@task(id="f-raise-sync", max_attempts=1)
def f_raise_sync(payload: str) -> None:
    raise _EXITS[payload]


class _Fussy(_Work):
    """Its check needs something that is missing where it is executed, and says so with an error of its own."""

    triggered_by: int

    @field_validator("triggered_by")
    @classmethod
    def look_up(cls, pid: int) -> int:
        if pid != os.getpid():
            raise LookupError("the thing to look up is away")
        return pid


@task(id="f-fussy", max_attempts=1)
async def f_fussy(payload: _Fussy) -> None:
    payload.note("began")


@task(id="f-orm", max_attempts=1)
async def f_orm(payload: _Work, ctx: RunContext) -> int:
    payload.note("began")
    await payload.opened(1)
    return await Run.objects.filter(pk=ctx.run.id).acount()


@task(id="f-orm-sync", max_attempts=1)
def f_orm_sync(payload: _Work, ctx: RunContext) -> int:
    return Run.objects.filter(pk=ctx.run.id).count()


@task(id="f-speaks", max_attempts=1)
async def f_speaks(payload: _Work) -> None:
    """Writes all the time: metadata and a tag."""
    await tags.aadd("hammered")
    for number in range(5):
        metadata.set("step", number)
        await metadata.aflush()


# -- hooks ------------------------------------------------------------------------------------------------------------


def _note_hook(name: str, run: RealtimeRun) -> None:
    _Work.model_validate(run.payload).note(f"{name} {run.status} {run.id}")


@task(id="f-hooked", max_attempts=1, max_duration=0.2)
async def f_hooked(payload: dict[str, Any]) -> None:
    """`end`: what it does."""
    if payload["end"] == "fail":
        raise RuntimeError("as told")
    if payload["end"] == "last":
        await asyncio.sleep(60)


@f_hooked.on_success
def _hooked_succeeded(run: RealtimeRun) -> None:
    _note_hook("on_success", run)


@f_hooked.on_failure
async def _hooked_failed(run: RealtimeRun) -> None:
    _note_hook("on_failure", run)


@f_hooked.on_cancel
def _hooked_canceled(run: RealtimeRun) -> None:
    _note_hook("on_cancel", run)


@task(id="f-bad-hook", max_attempts=1)
async def f_bad_hook(payload: dict[str, Any]) -> str:
    return "fine"


@f_bad_hook.on_start
async def _bad_start(run: RealtimeRun) -> None:
    if run.payload["when"] == "on_start":
        _raise_in_hook(run)


@f_bad_hook.on_success
async def _bad_success(run: RealtimeRun) -> None:
    if run.payload["when"] == "on_success":
        _raise_in_hook(run)


def _raise_in_hook(run: RealtimeRun) -> None:
    _note_hook("raises", run)
    raise {"ValueError": ValueError, **_EXITS}[run.payload["error"]]("in a hook")


@task(id="f-slow-hook", max_attempts=1)
async def f_slow_hook(payload: dict[str, Any]) -> None:
    return None


@f_slow_hook.on_success
async def _slow_success(run: RealtimeRun) -> None:
    work = _Work.model_validate(run.payload)
    work.note(f"hook began {os.getpid()}")
    await work.opened(1)
    work.note("hook ended")


@task(id="f-gate-hooked", max_attempts=1)
async def f_gate_hooked(payload: _Work) -> None:
    payload.note("began")
    await payload.opened(1)


@f_gate_hooked.on_success
def _gate_hooked_succeeded(run: RealtimeRun) -> None:
    _note_hook("on_success", run)


__all__ = [name for name in dir(sys.modules[__name__]) if name.startswith("f_")]
