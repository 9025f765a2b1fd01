"""The demo tasks: the small ones that the clients' tests speak to (wire-protocol 13), and one real job.

None is tried again after a failure, so that a failure can be seen. Payload fields are spelled as on the wire.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from project import airports, summary
from realtime_runs import metadata, streams, wait
from realtime_runs.tasks import RunContext, task

ai_output = streams.define("ai-output", str)
text_stream = streams.define("text", str)
approval = streams.input("approval")


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


class TextRequest(Payload):
    text: str
    delay_ms: Milliseconds = Field(20, alias="delayMs")


@task(id="stream-text", max_attempts=1)
async def stream_text(payload: TextRequest) -> dict[str, int]:
    """Streams the text word by word, as a language model would."""
    words = payload.text.split()
    for word in words:
        await ai_output.aappend(word)
        await asyncio.sleep(payload.delay_ms / 1000)
    return {"chunks": len(words)}


STORY = (
    "A run is one execution of a task. While it works, everyone who may watch sees it live: its status, its progress, "
    "and the words that it streams, each once and in order. Reload this page in the middle of a sentence, open it in a "
    "second tab, or pull the plug for a moment: nothing is lost, and nothing comes twice."
)


class StoryRequest(Payload):
    text: str = STORY
    delay_ms: Milliseconds = Field(120, alias="delayMs")


@task(id="tell-story", max_attempts=1)
async def tell_story(payload: StoryRequest | None = None) -> dict[str, int]:
    """Streams a text as a language model does: in pieces that make the text when they are joined."""
    request = payload or StoryRequest()
    pieces = re.findall(r"\s*\S+", request.text)
    for piece in pieces:
        await ai_output.aappend(piece)
        await asyncio.sleep(request.delay_ms / 1000)
    return {"pieces": len(pieces)}


class StreamsRequest(Payload):
    count: int = Field(3, ge=0, le=10_000)
    delay_ms: Milliseconds = Field(20, alias="delayMs")


@task(id="multi-stream", max_attempts=1)
async def multi_stream(payload: StreamsRequest | None = None) -> dict[str, Any]:
    """Writes three streams in turn."""
    request = payload or StreamsRequest()
    for number in range(request.count):
        await ai_output.aappend(f"token-{number}")
        await streams.aappend("progress", {"step": number + 1, "total": request.count})
        await streams.aappend("default", f"default-{number}")
        await asyncio.sleep(request.delay_ms / 1000)
    return {"streams": ["ai-output", "progress", "default"], "count": request.count}


class WaitRequest(Payload):
    mode: Literal["input", "token"] = "input"
    token_id: str | None = Field(None, alias="tokenId")
    timeout_seconds: Annotated[Number, Field(ge=0, le=86_400, alias="timeoutSeconds")] = 60

    @model_validator(mode="after")
    def has_token(self) -> Self:
        if self.mode == "token" and not self.token_id:
            raise ValueError('mode "token" needs a tokenId')
        return self


@task(id="wait-approval", max_attempts=1)
async def wait_approval(payload: WaitRequest | None = None) -> dict[str, Any]:
    """Waits for an approval: a record of the input stream `approval`, or the completion of a wait token."""
    request = payload or WaitRequest()
    metadata.set("waitingFor", request.mode)
    try:
        if request.token_id and request.mode == "token":
            async with asyncio.timeout(request.timeout_seconds):
                return {"approval": (await wait.afor_token(request.token_id)).unwrap()}
        return {"approval": await approval.await_(timeout=request.timeout_seconds)}
    except TimeoutError:
        return {"approval": None, "timedOut": True}


def summarisable(name: str) -> str:
    # Comparing with what is there leaves no room for a path that leads elsewhere.
    if name not in summary.names():
        raise ValueError("not a text of this repository; take README.md, LICENSE or a page such as docs/tutorial.md")
    return name


class SummaryRequest(Payload):
    file: Annotated[str, AfterValidator(summarisable)] = "docs/explanation/how-it-works.md"
    sentences: int = Field(5, ge=1, le=100)
    delay_ms: Milliseconds = Field(100, alias="delayMs")  # after each paragraph, for the eye


@task(id="summarise-file", max_attempts=1)
async def summarise_file(payload: SummaryRequest | None = None) -> summary.Summary:
    """Streams a text paragraph by paragraph, and gives those of its sentences that say most about it."""
    request = payload or SummaryRequest()
    metadata.set("status", f"Reading {request.file}")
    text = (summary.ROOT / request.file).read_text(encoding="utf-8")
    pieces = summary.paragraphs(text)

    async def reading() -> AsyncIterator[str]:
        for current, piece in enumerate(pieces, 1):
            yield piece
            metadata.set("progress", progress(current, len(pieces)))
            await asyncio.sleep(request.delay_ms / 1000)

    read = [piece async for piece in text_stream.apipe(reading())]  # stored as they come, and seen here too
    result = summary.summarise(request.file, "".join(read), request.sentences)
    metadata.set("status", f"{min(request.sentences, result.sentences)} of {result.sentences} sentences")
    return result


MOST_REJECTED = 50  # rows in the metadata, which is small; the output has all of them


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
            metadata.set("report", asdict(replace(report, rejected=report.rejected[-MOST_REJECTED:])))
            if ctx.signal.wait(request.delay_ms / 1000):
                raise Stopped(f"Told to stop after {report.total:,} of {total:,} rows")
    report.states = dict(sorted(report.states.items()))
    places = len(report.states)
    metadata.delete("report")  # the output is one
    metadata.set("status", f"{report.accepted:,} of {report.total:,} airports in {places} states and territories")
    return report


def progress(current: int, total: int) -> dict[str, int]:
    # Half a per cent goes up, as in JavaScript's Math.round; Python's round() would go to the even neighbour.
    return {"current": current, "total": total, "percentage": (200 * current + total) // (2 * total)}
