"""Tasks of the live tests."""

import asyncio

from pydantic import BaseModel

from realtime_runs import metadata, streams
from realtime_runs.engine.backends.embedded import EmbeddedBackend
from realtime_runs.tasks import Retry, RunContext, task


class Steps(BaseModel):
    count: int
    pause: float = 0.1  # seconds after each


@task(id="t-live-steps", max_attempts=1)
async def live_steps(payload: Steps) -> int:
    """Changes its metadata once in each step."""
    for step in range(1, payload.count + 1):
        metadata.set("step", step)
        await metadata.aflush()
        await asyncio.sleep(payload.pause)
    return payload.count


class WorkElsewhere(EmbeddedBackend):
    """Of a server that leaves the work to `runs_worker`."""

    def start(self) -> None: ...


@task(id="t-live-closed-once", retry=Retry(max_attempts=2, min_seconds=0.01, max_seconds=0.02))
async def closed_once(ctx: RunContext) -> None:
    """Each attempt appends its number to `attempts`; the first one closes the stream and fails a little later."""
    await streams.aappend("attempts", ctx.attempt)
    if ctx.attempt == 1:
        await streams.aclose("attempts")
        await asyncio.sleep(0.5)
        raise ValueError("the first time")
