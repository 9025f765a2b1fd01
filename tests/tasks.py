"""Tasks that tests trigger. Found by the app like those of any project.

Modules beside this one hold those of a subject.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from realtime_runs import metadata
from realtime_runs.tasks import AbortRun, Retry, RunContext, current_run, task
from tests.tasks_faults import *  # noqa: F403
from tests.tasks_inputs import *  # noqa: F403
from tests.tasks_live import *  # noqa: F403
from tests.tasks_pipes import *  # noqa: F403


class Order(BaseModel):
    items: list[str]
    rush: bool = False


@dataclass
class Receipt:
    processed: int


@task(id="t-echo")
async def echo(payload: Any) -> Any:
    return payload


@task(id="t-echo-sync")
def echo_sync(payload: Any) -> Any:
    return payload


@task(id="t-order", max_attempts=2)
async def order(payload: Order) -> Receipt:
    for number, _ in enumerate(payload.items, 1):
        metadata.set("progress", {"current": number, "total": len(payload.items)})
    return Receipt(processed=len(payload.items))


@task(id="t-nothing")
def nothing() -> None:
    return None


@task(id="t-context")
def context(payload: str, ctx: RunContext) -> dict[str, Any]:
    inner = current_run()
    return {
        "payload": payload,
        "id": ctx.run.id,
        "attempt": ctx.attempt,
        "parent": ctx.parent,
        "same": inner is ctx,
        "stopped": ctx.signal.is_set(),
    }


@task(id="t-fail", retry=Retry(max_attempts=3, min_seconds=0.01, max_seconds=0.05))
async def fail(payload: str = "boom") -> None:
    raise ValueError(payload)


@task(id="t-abort")
def abort() -> None:
    raise AbortRun("no use")


@task(id="t-fail-once", retry=Retry(max_attempts=3, min_seconds=0.01, max_seconds=0.05))
async def fail_once(ctx: RunContext) -> int:
    if ctx.attempt == 1:
        raise RuntimeError("the first time")
    return ctx.attempt


@task(id="t-sleep", max_attempts=1)
async def sleep(payload: float) -> float:
    await asyncio.sleep(payload)
    return payload


@task(id="t-sleep-sync", max_attempts=1)
def sleep_sync(payload: float, ctx: RunContext) -> bool:
    """True when it was told to stop."""
    until = time.monotonic() + payload
    while time.monotonic() < until:
        if ctx.signal.wait(0.01):
            return True
    return False


@task(id="t-bad-output")
def bad_output() -> int:
    return "not a number"  # type: ignore[return-value]


@task(id="t-not-json")
def not_json() -> Any:
    return {"nan": float("nan")}


@task(id="t-parent")
async def parent(payload: int) -> int:
    return (await echo.atrigger_and_wait(payload)).unwrap() + 1


@task(id="t-parent-sync")
def parent_sync(payload: int) -> int:
    return sum(result.unwrap() for result in echo.batch_trigger_and_wait([payload, payload]))


@task(id="t-parent-of-failure")
async def parent_of_failure() -> dict[str, Any]:
    result = await fail.atrigger_and_wait("child", max_attempts=1)
    return {"ok": result.ok, "error": result.error.message if result.error else None, "id": result.id}
