"""A stream as Server-Sent Events (WHATWG HTML 9.2), for a plain Django view.

    id: 5                   the index of the chunk; an EventSource that reconnects sends it as Last-Event-ID
    data: {"a":1}           the chunk, JSON in one line

Also `event: restart` (data: the StreamRestarted as JSON), `event: end` (data: {"reason": …}, the stream is closed: a
client should close its EventSource), `event: cursor` (data: {"index": …}, this answer is over but the stream is not: an
EventSource comes back by itself), `event: error`, and comments that keep the connection alive.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

from django.http import HttpRequest, StreamingHttpResponse

from realtime_runs.engine.context import is_on_event_loop
from realtime_runs.exceptions import RealtimeRunsError, StreamTimeout
from realtime_runs.live.chunks import Chunk
from realtime_runs.live.items import StreamRestarted
from realtime_runs.live.stream_follow import ChunkReader
from realtime_runs.models import StreamName

PING_SECONDS: Final = 10.0
WSGI_SECONDS: Final = 25.0  # a synchronous server gives a whole thread or process to each answer

HEADERS: Final = {
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",  # nginx would collect a page full of events first
}
_PING: Final = b": ping\n\n"

MakeReader = Callable[[float | None], ChunkReader[Chunk]]  # from a time-out; the next one goes on where this one was


def answer(request: HttpRequest | None, name: StreamName, **options: Any) -> StreamingHttpResponse:
    """The events of a stream, as the server can send them. `options`: of a ChunkReader."""
    options["start_index"] = start_index(request, options["start_index"])
    if is_on_event_loop():
        return response(async_events(ChunkReader(name, _same, **options)))
    latest: ChunkReader[Chunk] | None = None

    def make_reader(timeout: float | None) -> ChunkReader[Chunk]:
        nonlocal latest
        if latest is not None:
            options["start_index"] = latest.next_index
        latest = ChunkReader(name, _same, **{**options, "timeout": timeout})
        return latest

    return response(sync_events(make_reader, options["timeout"]))


def _same(chunk: Chunk) -> Chunk:
    return chunk


def response(events: AsyncIterator[bytes] | Iterator[bytes]) -> StreamingHttpResponse:
    return StreamingHttpResponse(events, content_type="text/event-stream; charset=utf-8", headers=HEADERS)


def start_index(request: HttpRequest | None, default: int | None) -> int | None:
    """Where a client goes on that was cut off. What is no index of ours is ignored."""
    given = request.headers.get("Last-Event-ID", "") if request is not None else ""
    return int(given) + 1 if given.isascii() and given.isdigit() and len(given) < 19 else default


def event(name: str, data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def _chunk(item: Chunk | StreamRestarted) -> bytes:
    if isinstance(item, StreamRestarted):
        return event("restart", {"stream": item.stream, "attempt": item.attempt, "index": item.index})
    return b"id: %d\ndata: %s\n\n" % (item.index, item.data)


def _over(reader: ChunkReader[Chunk], error: RealtimeRunsError | None) -> bytes:
    if error is None and reader.end_reason:
        return event("end", {"reason": reader.end_reason})
    if error is None or isinstance(error, StreamTimeout):
        return event("cursor", {"index": reader.next_index})
    return event("error", {"message": str(error)})


async def async_events(reader: ChunkReader[Chunk]) -> AsyncIterator[bytes]:
    """Until the stream ends or the client leaves, which closes this generator and so the reader."""
    chunks = aiter(reader)
    coming: asyncio.Future[Any] = asyncio.ensure_future(anext(chunks))
    error: RealtimeRunsError | None = None
    yield b": ok\n\n"  # headers are sent with the first bytes
    try:
        while True:
            done, _ = await asyncio.wait([coming], timeout=PING_SECONDS)
            if not done:
                yield _PING
                continue
            try:
                item = coming.result()
            except StopAsyncIteration:
                break
            except RealtimeRunsError as raised:
                error = raised
                break
            coming = asyncio.ensure_future(anext(chunks))
            yield _chunk(item)
        yield _over(reader, error)
    finally:
        coming.cancel()
        reader.close()


def sync_events(make_reader: MakeReader, silence: float | None) -> Iterator[bytes]:
    """The same where the server is synchronous: at most WSGI_SECONDS, then the client comes back."""
    until = time.monotonic() + WSGI_SECONDS
    quiet_until = time.monotonic() + (silence or WSGI_SECONDS)
    yield b": ok\n\n"
    while True:
        now = time.monotonic()
        reader = make_reader(max(0.05, min(PING_SECONDS, until - now, quiet_until - now)))
        error: RealtimeRunsError | None = None
        try:
            for item in reader:
                yield _chunk(item)
                quiet_until = time.monotonic() + (silence or WSGI_SECONDS)
                if time.monotonic() > until:
                    reader.close()
        except StreamTimeout as raised:
            error = raised
        except RealtimeRunsError as raised:
            yield _over(reader, raised)
            return
        if error is None or time.monotonic() >= min(until, quiet_until):
            yield _over(reader, error)
            return
        yield _PING
