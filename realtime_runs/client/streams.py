"""Streams over HTTP: reading them (wire-protocol 8.3), writing them (8.5), and sending to a run (9)."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from realtime_runs.client.following import Following, Signal, events
from realtime_runs.client.objects import id_of
from realtime_runs.client.transport import Transport, run_sync
from realtime_runs.durations import Duration, parse_duration
from realtime_runs.exceptions import InvalidOption, RunNotFound, StreamAborted, StreamTimeout
from realtime_runs.live.items import StreamRecord

_DEFAULT_KEY: Final = "default"
_DEFAULT_SECONDS: Final = 60.0
_LONGEST_SECONDS: Final = 600
_MOST_LINES: Final = 500  # in one request
_MOST_WAITING: Final = 2000  # chunks that a source is ahead of what is stored

Source = Iterable[Any] | AsyncIterable[Any]


def stream_path(run: Any, *parts: str) -> str:
    return "/".join(["/realtime/v1/streams", *(quote(part, safe="/") for part in (id_of(run), *parts))])


class RecordReader(Following[StreamRecord[Any]]):
    """The chunks of a stream as `StreamRecord`s (their `attempt` does not travel: 0)."""

    def __init__(
        self,
        transport: Transport,
        run: Any,
        key: str,
        *,
        start_index: int | None = 0,
        seconds: float | None = None,
        signal: Signal | None = None,
    ) -> None:
        """`start_index` None: only what comes from now on. `seconds` without a chunk end it; None: never."""
        super().__init__(signal)
        self._transport = transport
        self._run_id = id_of(run)
        self._key = key
        self._start_index = start_index
        self._seconds = seconds
        self.end_reason = ""
        self.next_index = start_index or 0

    def _headers(self) -> dict[str, str]:
        seconds = _LONGEST_SECONDS if self._seconds is None else min(max(1, self._seconds), _LONGEST_SECONDS)
        found = {"Timeout-Seconds": f"{seconds:g}"}
        if self.next_index:
            found["Last-Event-ID"] = str(self.next_index - 1)
        elif self._start_index is None:
            found["X-Trigger-Stream-Start"] = "latest"
        return found

    async def _items(self) -> AsyncGenerator[StreamRecord[Any], None]:
        self.end_reason, self.next_index = "", self._start_index or 0
        path, last = stream_path(self._run_id, self._key), time.monotonic()
        async with aclosing(events(self._transport, path, self._headers, RunNotFound(self._run_id))) as coming:
            async for event in coming:
                if event is None:
                    if self._seconds is not None and time.monotonic() - last >= self._seconds * 0.99:
                        raise StreamTimeout(self._run_id, self._key, self._seconds, self.next_index)
                elif event.event == "batch":
                    last = time.monotonic()
                    for record in json.loads(event.data)["records"]:
                        if record["seq_num"] >= self.next_index:  # else a connection has given it before
                            self.next_index = record["seq_num"] + 1
                            yield _record(record)
                elif event.event == "end":
                    self.end_reason = json.loads(event.data)["reason"]
                    return

    def _when_aborted(self) -> None:
        raise StreamAborted(self._run_id, self._key, self.next_index)


class StreamReader(Following[Any]):
    """The chunks of a stream, live: what is stored, then what comes, until it is closed. Then `end_reason` says why.

    Raises RunNotFound, StreamTimeout when nothing came for so long, StreamAborted when the signal was set. A connection
    that is lost is made anew, and each chunk is given once. `next_index` is where the last loop would go on.
    """

    def __init__(self, records: RecordReader) -> None:
        super().__init__(records._signal)
        self._records = records

    @property
    def end_reason(self) -> str:
        return self._records.end_reason

    @property
    def next_index(self) -> int:
        return self._records.next_index

    def records(self) -> RecordReader:
        """The same as `StreamRecord`s: index, chunk, time and id."""
        return self._records

    def _when_aborted(self) -> None:
        self._records._when_aborted()

    async def _items(self) -> AsyncGenerator[Any, None]:
        async with aclosing(self._records._items()) as records:
            async for record in records:
                yield record.chunk


def _record(record: dict[str, Any]) -> StreamRecord[Any]:
    body = json.loads(record["body"])
    at = datetime.fromtimestamp(record["timestamp"] / 1000, UTC)
    return StreamRecord(record["seq_num"], body["data"], 0, at, body["id"])


class Streams:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def read(
        self,
        run: Any,
        key: str = _DEFAULT_KEY,
        *,
        start_index: int = 0,
        start: str | None = None,
        timeout_in_seconds: Duration = _DEFAULT_SECONDS,
        signal: Signal | None = None,
    ) -> StreamReader:
        """Read a stream of a run: see StreamReader. `start="latest"` begins with what comes next. `timeout_in_seconds`:
        1 to 600. Raises InvalidOption.
        """
        if not isinstance(start_index, int) or isinstance(start_index, bool) or start_index < 0:
            raise InvalidOption(f"start_index is a whole number from 0 on, not {start_index!r}.")
        if start not in (None, "latest"):
            raise InvalidOption(f'start can only be "latest", not {start!r}.')
        seconds = parse_duration(timeout_in_seconds, "timeout_in_seconds").total_seconds()
        if not 1 <= seconds <= _LONGEST_SECONDS:
            raise InvalidOption(f"timeout_in_seconds is from 1 to {_LONGEST_SECONDS}.")
        index = None if start == "latest" else start_index
        return StreamReader(RecordReader(self._transport, run, key, start_index=index, seconds=seconds, signal=signal))

    def append(self, key: str, chunk: Any, *, target: Any) -> None:
        """Store one chunk, any JSON value, in a stream of the run `target`; when it returns, it is committed. Needs a
        secret key. Raises StreamClosed, RunNotFound, NotJson, TooLarge.
        """
        run_sync(self.aappend(key, chunk, target=target))

    async def aappend(self, key: str, chunk: Any, *, target: Any) -> None:
        await self._store(key, target, str(uuid.uuid4()), 0, [_line(chunk)])

    def pipe(self, key: str, source: Source, *, target: Any) -> None:
        """Store everything that an iterable gives, as it comes; returns when all is stored. What a lost connection
        makes uncertain is sent again, and stored once.
        """
        run_sync(self.apipe(key, source, target=target))

    async def apipe(self, key: str, source: Source, *, target: Any) -> None:
        """The same for an iterable or async iterable."""
        lines: list[bytes] = []
        has_lines, has_room = asyncio.Event(), asyncio.Event()
        is_over = False
        writer = str(uuid.uuid4())

        async def send() -> None:
            index = 0
            while lines or not is_over:
                await has_lines.wait()
                part = lines[:_MOST_LINES]
                if part:  # what waits while a request is under way goes with the next one
                    await self._store(key, target, writer, index, part)
                    index += len(part)
                    del lines[: len(part)]
                    has_room.set()
                if not lines and not is_over:
                    has_lines.clear()

        sending = asyncio.ensure_future(send())
        try:
            async for chunk in _each(source):
                lines.append(_line(chunk))
                has_lines.set()
                while len(lines) > _MOST_WAITING and not sending.done():
                    has_room.clear()
                    room = asyncio.ensure_future(has_room.wait())
                    await asyncio.wait([room, sending], return_when=asyncio.FIRST_COMPLETED)
                    room.cancel()
                if sending.done():
                    break
            is_over = True
            has_lines.set()
            await sending
        finally:
            sending.cancel()

    async def _store(self, key: str, target: Any, writer: str, index: int, lines: list[bytes]) -> None:
        headers = {
            "X-Client-Id": writer,
            "X-Resume-From-Chunk": str(index),
            "X-Stream-Version": "v1",
            "Content-Type": "application/json",
        }
        run_id = id_of(target)
        path = stream_path(run_id, "self", key)
        content = b"".join(lines)
        await self._transport.call("POST", path, content=content, headers=headers, missing=RunNotFound(run_id))

    def input(self, key: str) -> "Input":
        """An input stream, to be sent to."""
        return Input(self._transport, key)


class Input:
    def __init__(self, transport: Transport, key: str) -> None:
        self._transport = transport
        self.key = key

    def send(self, run: Any, data: Any) -> None:
        """Send a record, any JSON value, to a run. Raises StreamClosed when the run is final, RunNotFound, TooLarge."""
        run_sync(self.asend(run, data))

    async def asend(self, run: Any, data: Any) -> None:
        path = stream_path(run, "input", self.key)
        await self._transport.call("POST", path, body={"data": data}, missing=RunNotFound(id_of(run)))


def _line(chunk: Any) -> bytes:
    return json.dumps(chunk, allow_nan=False).encode() + b"\n"


async def _each(source: Source) -> AsyncIterator[Any]:
    if isinstance(source, AsyncIterable):
        async for chunk in source:
            yield chunk
        return
    iterator, end = iter(source), object()
    while (chunk := await asyncio.to_thread(next, iterator, end)) is not end:
        yield chunk
