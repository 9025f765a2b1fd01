"""Tasks that wait: for input, for wait tokens, for a time."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from django.utils import timezone
from pydantic import BaseModel

from realtime_runs import metadata, streams, wait
from realtime_runs.exceptions import WaitTimeout
from realtime_runs.tasks import Retry, RunContext, current_run, task


class Approval(BaseModel):
    ok: bool
    by: str = ""


approval = streams.input("approval", Approval)
numbers = streams.input("numbers", int)

stopped: dict[str, str] = {}  # run id → what was raised inside of it


@contextmanager
def noting_stops() -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        stopped[current_run().run.id] = type(error).__name__
        raise


@task(id="t-input-once", max_attempts=1)
async def input_once(payload: float | None = None) -> str:
    try:
        return (await approval.aonce(timeout=payload)).by
    except WaitTimeout:
        return "timed out"


@task(id="t-input-once-sync", max_attempts=1)
def input_once_sync(payload: float | None = None) -> str:
    try:
        return approval.once(timeout=payload).by
    except WaitTimeout:
        return "timed out"


@task(id="t-input-wait", max_attempts=1)
async def input_wait(payload: float | None = None) -> str:
    try:
        with noting_stops():
            return (await approval.await_(timeout=payload)).by
    except WaitTimeout:
        return "timed out"


@task(id="t-input-wait-sync", max_attempts=1)
def input_wait_sync(payload: float | None = None) -> str:
    try:
        with noting_stops():
            return approval.wait(timeout=payload).by
    except WaitTimeout:
        return "timed out"


@task(id="t-input-peek", max_attempts=1)
async def input_peek() -> list[Any]:
    return [await numbers.apeek(), await numbers.apeek(), await numbers.aonce(timeout=5), await numbers.apeek()]


@task(id="t-input-peek-sync", max_attempts=1)
def input_peek_sync() -> list[Any]:
    return [numbers.peek(), numbers.peek(), numbers.once(timeout=5), numbers.peek()]


@task(id="t-input-retry", retry=Retry(max_attempts=2, min_seconds=0.01, max_seconds=0.02))
async def input_retry(ctx: RunContext) -> list[int]:
    """Takes two records in each attempt; the first attempt fails then."""
    taken = [await numbers.aonce(timeout=20), await numbers.aonce(timeout=20)]
    if ctx.attempt == 1:
        raise RuntimeError("the first time")
    return taken


@task(id="t-input-many", max_attempts=1)
async def input_many(payload: int) -> list[int]:
    """As many records as there are waiters, who wait all at once: async ones, and threads."""

    async def one(number: int) -> int:
        return await (numbers.await_(timeout=30) if number % 2 else numbers.aonce(timeout=30))

    in_threads = [asyncio.to_thread(numbers.once, 30) for _ in range(payload // 2)]
    return await asyncio.gather(*in_threads, *[one(number) for number in range(payload - payload // 2)])


@task(id="t-input-impatient", max_attempts=1)
async def input_impatient(payload: int) -> list[int]:
    """Gives up waiting again and again, at any moment, until it has that many records."""
    taken: list[int] = []
    patience, most = 0.0, 0.012
    while len(taken) < payload:
        patience += most / 20
        if patience > most:
            patience, most = 0.0, most * 1.5  # a busy machine may take longer than that for any record
        try:
            async with asyncio.timeout(patience):
                taken.append(await numbers.aonce())
        except TimeoutError:
            continue
    return taken


@task(id="t-input-on", max_attempts=1)
async def input_on(payload: str) -> dict[str, Any]:
    """Handles records until a negative one comes. `payload`: `sync` or `async`, the kind of the handler."""
    seen: list[int] = []
    done = asyncio.Event()
    loop = asyncio.get_running_loop()

    def handle(number: int) -> None:
        seen.append(number)
        metadata.set("seen", len(seen))
        if number == 13:
            raise ValueError("unlucky")
        if number < 0:
            loop.call_soon_threadsafe(done.set)

    async def ahandle(number: int) -> None:
        handle(number)

    with numbers.on(handle if payload == "sync" else ahandle):
        await asyncio.wait_for(done.wait(), 30)
    return {"seen": seen, "later": await numbers.aonce(timeout=30)}


@task(id="t-input-on-sync", max_attempts=1)
def input_on_sync(payload: str) -> list[int]:
    seen: list[int] = []
    done = threading.Event()
    run_id = current_run().run.id

    def handle(number: int) -> None:
        assert current_run().run.id == run_id
        seen.append(number)
        if number < 0:
            done.set()

    async def ahandle(number: int) -> None:
        handle(number)

    with numbers.on(handle if payload == "sync" else ahandle):
        done.wait(30)
    return seen


@task(id="t-wait-for", max_attempts=1)
async def wait_for(payload: float) -> bool:
    await wait.afor_(payload)
    return True


@task(id="t-wait-for-sync", max_attempts=1)
def wait_for_sync(payload: float) -> bool:
    with noting_stops():
        wait.for_(payload)
    return True


@task(id="t-wait-until", max_attempts=1)
async def wait_until(payload: float) -> bool:
    await wait.auntil(timezone.now() + timedelta(seconds=payload))
    return True


@task(id="t-wait-token", max_attempts=1)
async def wait_token(payload: str) -> dict[str, Any]:
    result = await wait.afor_token(payload)
    return {"ok": result.ok, "output": result.output}


@task(id="t-wait-token-sync", max_attempts=1)
def wait_token_sync(payload: str) -> dict[str, Any]:
    with noting_stops():
        result = wait.for_token(payload)
    return {"ok": result.ok, "output": result.output}


@task(id="t-wait-token-unwrap", max_attempts=1)
async def wait_token_unwrap(payload: str) -> Any:
    return (await wait.afor_token(payload)).unwrap()
