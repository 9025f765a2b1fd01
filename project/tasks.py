"""The demo tasks: the small ones that the clients' tests speak to (wire-protocol 13), and one real job.

None is tried again after a failure, so that a failure can be seen. Payload fields are spelled as on the wire.
"""

import asyncio
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from project import airports
from realtime_runs import metadata
from realtime_runs.tasks import RunContext, task


def shortest(number: float) -> int | float:
    return int(number) if number.is_integer() else number


Number = Annotated[float, AfterValidator(shortest)]  # as JavaScript writes it: 2, not 2.0
Milliseconds = Annotated[Number, Field(ge=0, le=60_000)]


class Payload(BaseModel):
    model_config = ConfigDict(populate_by_name=True)  # delayMs on the wire, delay_ms in Python


@task(id="echo", max_attempts=1)
async def echo(payload: Any) -> Any:
    """Gives the payload back."""
    return payload


class FailRequest(Payload):
    message: str = "boom"


@task(id="fail", max_attempts=1)
async def fail(payload: FailRequest | None = None) -> None:
    """Raises an exception with the message."""
    raise RuntimeError((payload or FailRequest()).message)


class SlowRequest(Payload):
    seconds: Annotated[Number, Field(ge=0, le=86_400)]


@task(id="slow", max_attempts=1)
async def slow(payload: SlowRequest) -> dict[str, int | float]:
    """Sleeps; a cancel wakes it."""
    await asyncio.sleep(payload.seconds)
    return {"slept": payload.seconds}


class ProgressRequest(Payload):
    items: list[str]
    delay_ms: Milliseconds = Field(100, alias="delayMs")


@task(id="progress-task", max_attempts=1)
async def progress_task(payload: ProgressRequest) -> dict[str, int]:
    """Goes through the items and says so in its metadata."""
    total = len(payload.items)
    for current, item in enumerate(payload.items, 1):
        metadata.set("progress", {**progress(current, total), "currentItem": item})
        await asyncio.sleep(payload.delay_ms / 1000)
    metadata.set("status", "completed")
    return {"processed": total}


class Stopped(Exception):
    """The import was told to stop; what it counted so far must not pass for a result."""


def importable(name: str) -> str:
    # Comparing with what is there leaves no room for a path that leads elsewhere.
    if name not in airports.names():
        raise ValueError(f"not a file of project/data; there is {', '.join(airports.names())}")
    return name


class ImportRequest(Payload):
    file: Annotated[str, AfterValidator(importable)] = "airports.csv"
    delay_ms: Milliseconds = Field(90, alias="delayMs")  # after each hundred rows, for the eye: 3 s for the whole file


@task(id="import-airports", max_attempts=1)
def import_airports(payload: ImportRequest | None = None, *, ctx: RunContext) -> airports.Report:
    """Reads a file of airports, judges each row, counts by state. Stops within a hundred rows when it is canceled."""
    request = payload or ImportRequest()
    metadata.set("status", f"Reading {request.file}")
    path = airports.DATA / request.file
    total = sum(1 for _ in airports.read(path))
    report = airports.Report(request.file)
    for row in airports.read(path):
        report.add(row)
        if report.total % 100 == 0 or report.total == total:
            metadata.set("progress", progress(report.total, total))
            if ctx.signal.wait(request.delay_ms / 1000):
                raise Stopped(f"Told to stop after {report.total:,} of {total:,} rows")
    report.states = dict(sorted(report.states.items()))
    places = len(report.states)
    metadata.set("status", f"{report.accepted:,} of {report.total:,} airports in {places} states and territories")
    return report


def progress(current: int, total: int) -> dict[str, int]:
    # Half a per cent goes up, as in JavaScript's Math.round; Python's round() would go to the even neighbour.
    return {"current": current, "total": total, "percentage": (200 * current + total) // (2 * total)}
