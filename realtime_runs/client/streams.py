"""Streams over HTTP: reading them (wire-protocol 8.3), writing them (8.5), and sending to a run (9)."""

import asyncio
import json
import math
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from urllib.parse import quote

from realtime_runs.client.following import Following, Signal, events
from realtime_runs.client.objects import id_of
from realtime_runs.client.piping import Source, line, pipe
from realtime_runs.client.transport import Transport, run_sync
from realtime_runs.durations import Duration, parse_duration
from realtime_runs.exceptions import InvalidOption, RunNotFound, StreamAborted, StreamTimeout
from realtime_runs.live.items import StreamRecord

T = TypeVar("T")

_DEFAULT_KEY: Final = "default"
_DEFAULT_SECONDS: Final = 60.0
_LONGEST_SECONDS: Final = 600  # that a server can be asked for


def stream_path(run: Any, *parts: str) -> str:
    return "/".join(["/realtime/v1/streams", *(quote(part, safe="/") for part in (id_of(run), *parts))])


class RecordReader(Following[T]):
    """The chunks of a stream as `StreamRecord`s, or what becomes of them. (Their `attempt` does not travel: 0.)"""

    def __init__(
        self,
        transport: Transport,
        run: Any,
        key: str,
        convert: Callable[[StreamRecord[Any]], T],
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
        self._convert = convert
        self._start_index = start_index
        self._seconds = seconds
        self.end_reason = ""
        self.next_index = start_index or 0

    async def _pages(self) -> AsyncGenerator[list[StreamRecord[Any]], None]:
        self.end_reason, self.next_index = "", self._start_index or 0
        wanted = self._start_index

        def headers() -> dict[str, str]:
            seconds = _LONGEST_SECONDS if self._seconds is None else math.ceil(self._seconds) + 1
            found = {"Timeout-Seconds": str(min(seconds, _LONGEST_SECONDS))}
            if wanted is None:
                found["X-Trigger-Stream-Start"] = "latest"
            elif wanted:
                found["Last-Event-ID"] = str(wanted - 1)
            return found

        def opened(answer: Mapping[str, str]) -> None:
            nonlocal wanted
            if wanted is None:  # "latest" is where the first connection began, also for those after it
                wanted = self.next_index = int(answer.get("X-Stream-Index", 0))

        path = stream_path(self._run_id, self._key)
        missing = RunNotFound(self._run_id)
        async with aclosing(events(self._transport, path, headers, missing, opened)) as coming:
            until = self._deadline()
            while True:
                try:
                    async with asyncio.timeout_at(until) as waiting:
                        event = await anext(coming)
                except TimeoutError:
                    if not waiting.expired():
                        raise
                    raise StreamTimeout(self._run_id, self._key, self._seconds or 0, self.next_index) from None
                if event is None:
                    continue
                if event.event == "batch":
                    records = [one for one in json.loads(event.data)["records"] if one["seq_num"] >= (wanted or 0)]
                    if records:
                        wanted = records[-1]["seq_num"] + 1
                        yield [_record(one) for one in records]
                    until = self._deadline()
                elif event.event == "end" and (reason := json.loads(event.data)["reason"]) != "auth":
                    self.end_reason = reason
                    return

    def _deadline(self) -> float | None:
        return None if self._seconds is None else asyncio.get_running_loop().time() + self._seconds

    def _give(self, item: StreamRecord[Any]) -> T:
        self.next_index = item.index + 1
        return self._convert(item)

    def _when_aborted(self) -> None:
        raise StreamAborted(self._run_id, self._key, self.next_index)


class StreamReader(RecordReader[Any]):
    """The chunks of a stream, live: what is stored, then what comes, until it is closed. Then `end_reason` says why.

    Raises RunNotFound, StreamTimeout when nothing came for so long, StreamAborted when the signal was set, StreamGap
    when chunks were removed. A connection that is lost is made anew, and each chunk is given once. `next_index` is
    where the last loop would go on.
    """

    def __init__(self, transport: Transport, run: Any, key: str, **options: Any) -> None:
        super().__init__(transport, run, key, lambda record: record.chunk, **options)
        self._options = options

    def records(self) -> RecordReader[StreamRecord[Any]]:
        """The same as `StreamRecord`s: index, chunk, time and id."""
        return RecordReader(self._transport, self._run_id, self._key, lambda record: record, **self._options)


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
        timeout_in_seconds: Duration | None = None,
        signal: Signal | None = None,
    ) -> StreamReader:
        """Read a stream of a run: see StreamReader. `start="latest"` begins with what comes next. `timeout_in_seconds`:
        default 60. Raises InvalidOption.
        """
        if not isinstance(start_index, int) or isinstance(start_index, bool) or not 0 <= start_index < 10**18:
            raise InvalidOption(f"start_index is a whole number from 0 on, not {start_index!r}.")
        if start not in (None, "latest"):
            raise InvalidOption(f'start can only be "latest", not {start!r}.')
        wanted = _DEFAULT_SECONDS if timeout_in_seconds is None else timeout_in_seconds
        seconds = parse_duration(wanted, "timeout_in_seconds").total_seconds()
        if seconds <= 0:
            raise InvalidOption("timeout_in_seconds must be positive.")
        index = None if start == "latest" else start_index
        return StreamReader(self._transport, run, key, start_index=index, seconds=seconds, signal=signal)

    def append(self, key: str, chunk: Any, *, target: Any, producer: str = "", sequence: int | None = None) -> None:
        """Store one chunk, any JSON value, in a stream of the run `target`; when it returns, it is committed. Needs a
        secret key. `producer` with `sequence` (from 0): what is stored already is not stored again. Raises
        StreamClosed, RunNotFound, NotJson, TooLarge, InvalidOption.
        """
        run_sync(self.aappend(key, chunk, target=target, producer=producer, sequence=sequence))

    async def aappend(
        self, key: str, chunk: Any, *, target: Any, producer: str = "", sequence: int | None = None
    ) -> None:
        if bool(producer) != (sequence is not None):
            raise InvalidOption("Give producer and sequence together.")
        await self._store(key, target, producer or str(uuid.uuid4()), sequence or 0, [line(chunk)])

    def pipe(self, key: str, source: Source, *, target: Any) -> None:
        """Store everything that an iterable gives, as it comes; returns when all is stored. What a lost connection
        makes uncertain is sent again, and stored once. What the source raises is raised when what it gave before is
        stored.
        """
        run_sync(self.apipe(key, source, target=target))

    async def apipe(self, key: str, source: Source, *, target: Any) -> None:
        """The same for an iterable or async iterable."""
        writer = str(uuid.uuid4())
        await pipe(source, lambda index, lines: self._store(key, target, writer, index, lines))

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
        """Send a record, any JSON value, to a run. Raises StreamClosed when the run is final, RunNotFound, TooLarge.
        After ConnectionFailed it may have arrived: it is not sent twice.
        """
        run_sync(self.asend(run, data))

    async def asend(self, run: Any, data: Any) -> None:
        path = stream_path(run, "input", self.key)
        await self._transport.call("POST", path, body={"data": data}, missing=RunNotFound(id_of(run)), may_repeat=False)
