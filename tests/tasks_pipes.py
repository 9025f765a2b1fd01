"""Tasks that pipe, for tests/test_pipes.py."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

from realtime_runs import streams
from realtime_runs.tasks import task

words = streams.define("words", str)


async def _slowly(count: int) -> AsyncIterator[str]:
    for number in range(count):
        await asyncio.sleep(0.01)
        yield str(number)


def _slowly_sync(count: int) -> Iterator[str]:
    for number in range(count):
        time.sleep(0.01)
        yield str(number)


@task(id="p-left", max_attempts=1)
async def p_left(count: int) -> None:
    words.apipe(_slowly(count))  # and the run waits for it


@task(id="p-left-sync", max_attempts=1)
def p_left_sync(count: int) -> None:
    words.pipe(_slowly_sync(count))


async def _failing() -> AsyncIterator[str]:
    yield "a"
    raise ValueError("the source is dry")


@task(id="p-failing", max_attempts=1)
async def p_failing(payload: None) -> str:
    words.apipe(_failing())
    return "not the output"


@task(id="p-failing-sync", max_attempts=1)
def p_failing_sync(payload: None) -> str:
    words.pipe(int(text) for text in ["a"])  # type: ignore[arg-type]
    return "not the output"


@task(id="p-heard", max_attempts=1)
async def p_heard(payload: None) -> str:
    try:
        await words.apipe(_failing()).wait_until_complete()
    except ValueError as error:
        return str(error)
    return "no error"


@task(id="p-endless", max_attempts=1)
async def p_endless(payload: None) -> None:
    words.apipe(_slowly(1_000_000))


@task(id="p-endless-sync", max_attempts=1)
def p_endless_sync(payload: None) -> None:
    words.pipe(_slowly_sync(1_000_000))


@task(id="p-children", max_attempts=1)
async def p_children(payload: None) -> None:
    await p_child.atrigger_and_wait(None)


@task(id="p-child", max_attempts=1)
async def p_child(payload: None) -> None:
    await words.aappend("to the parent", target="parent")
    await streams.aappend("words", "to the root", target="root")
    await words.aappend("own")


@task(id="p-quick", max_attempts=2)
async def p_quick(payload: None) -> int:
    """Many small chunks, of which none may be lost when the run ends at once."""
    words.apipe(str(number) for number in range(500))
    return 500


@task(id="p-logged", max_attempts=2)
async def p_logged(payload: str) -> None:
    """Notes each chunk that the pipe has taken: who asks for the next one has it."""

    async def source() -> AsyncIterator[str]:
        for number in range(1_000_000):
            yield str(number)
            with open(payload, "a") as log:
                log.write(f"{number}\n")
            await asyncio.sleep(0)

    await words.apipe(source()).wait_until_complete()
