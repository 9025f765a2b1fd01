"""Sending what an iterable gives, while it gives it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from contextlib import aclosing
from typing import Any, Final

from realtime_runs.client.options import json_text

Source = Iterable[Any] | AsyncIterable[Any]
Store = Callable[[int, list[bytes]], Awaitable[None]]  # the number of the first line, and the lines

_MOST_LINES: Final = 500  # in one request
_MOST_BYTES: Final = 1024 * 1024
_MOST_WAITING: Final = 2000  # chunks that a source is ahead of what is stored
_END: Final = object()


def line(chunk: Any) -> bytes:
    """Raises NotJson."""
    return json_text(chunk, "The chunk").encode() + b"\n"


async def pipe(source: Source, store: Store) -> None:
    """Until the source has ended and all is stored. What waits while a request is under way goes with the next one."""
    waiting: asyncio.Queue[bytes | None] = asyncio.Queue(_MOST_WAITING)
    storing = asyncio.ensure_future(_store(waiting, store))
    try:
        try:
            async with aclosing(_each(source)) as chunks:
                async for chunk in chunks:
                    await _put(waiting, line(chunk), storing)
                    if storing.done():
                        break
        except Exception:
            await _put(waiting, None, storing)
            await storing  # what it gave before it failed
            raise
        await _put(waiting, None, storing)
        await storing
    finally:
        storing.cancel()
        await asyncio.gather(storing, return_exceptions=True)


async def _put(waiting: "asyncio.Queue[bytes | None]", one: bytes | None, storing: "asyncio.Task[None]") -> None:
    """Not for ever where nobody takes any more."""
    if not waiting.full():
        waiting.put_nowait(one)
        return
    putting = asyncio.ensure_future(waiting.put(one))
    try:
        await asyncio.wait([putting, storing], return_when=asyncio.FIRST_COMPLETED)
    finally:
        putting.cancel()


async def _store(waiting: "asyncio.Queue[bytes | None]", store: Store) -> None:
    index, is_over, held = 0, False, b""
    while not is_over:
        first = held or await waiting.get()
        lines: list[bytes] = []
        size, held = 0, b""
        one: bytes | None = first
        while one is not None:
            if lines and (len(lines) == _MOST_LINES or size + len(one) > _MOST_BYTES):
                held = one
                break
            lines.append(one)
            size += len(one)
            if waiting.empty():
                break
            one = waiting.get_nowait()
        is_over = one is None
        if lines:
            await store(index, lines)
            index += len(lines)


async def _each(source: Source) -> AsyncGenerator[Any, None]:
    if isinstance(source, AsyncIterable):
        async for chunk in source:
            yield chunk
        return
    iterator = iter(source)
    while (chunk := await asyncio.to_thread(next, iterator, _END)) is not _END:
        yield chunk
