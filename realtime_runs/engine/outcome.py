"""Calling the user's code from an event loop that must survive it."""

import asyncio
from collections.abc import Awaitable
from contextvars import Context
from typing import Any


async def outcome(call: Awaitable[Any]) -> tuple[Any, BaseException | None]:
    """What the call returned, or what it raised: also SystemExit and its own cancellation.

    Only our own cancellation is raised.
    """
    task = start(call)
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        task.cancel()
        raise
    return result_of(task)


def start(call: Awaitable[Any], context: Context | None = None) -> "asyncio.Task[tuple[Any, BaseException | None]]":
    """Run the call as a task of its own, which may be cancelled; `result_of` tells how it ended."""
    return asyncio.get_running_loop().create_task(_guarded(call), context=context)


def result_of(task: "asyncio.Task[tuple[Any, BaseException | None]]") -> tuple[Any, BaseException | None]:
    try:
        return task.result()
    except asyncio.CancelledError as error:
        return None, error


async def _guarded(call: Awaitable[Any]) -> tuple[Any, BaseException | None]:
    try:
        return await call, None
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # a loop that sees a SystemExit ends, and every other run with it
        return None, error
