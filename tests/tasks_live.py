"""Tasks of the live tests."""

import asyncio

from pydantic import BaseModel

from realtime_runs import metadata
from realtime_runs.engine.backends.embedded import EmbeddedBackend
from realtime_runs.tasks import task


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
