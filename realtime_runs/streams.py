"""Streams: named, durable, append-only logs of a run, for AI tokens, log lines and file parts.

    ai_stream = streams.define("ai-output", str)      # once, at the top of a module

    await ai_stream.aappend("Hello")                   # in a task; returns when it is stored
    async for chunk in ai_stream.read(run_id): ...     # anywhere; ends with the stream

A run argument is an id, a handle, a snapshot or a row. `target` is `"self"`, `"parent"`, `"root"` (in a task) or a run.
Functions that touch the database have an async twin: `a` + name.
"""

from typing import Any, Generic, Literal, TypeVar, cast, overload

from asgiref.sync import sync_to_async
from django.http import HttpRequest, StreamingHttpResponse

from realtime_runs import sse
from realtime_runs.conf import app_settings
from realtime_runs.durations import Duration, parse_duration
from realtime_runs.engine.appending import last_sequence
from realtime_runs.engine.codec import Codec
from realtime_runs.engine.context import refuse_to_block
from realtime_runs.engine.feeding import Sink
from realtime_runs.engine.pipes import AsyncPipe, Pipe, Source
from realtime_runs.engine.stream_writer import StreamWriter
from realtime_runs.engine.writing import DEFAULT_KEY, Target, check_key, check_run_id
from realtime_runs.exceptions import InvalidOption
from realtime_runs.input_streams import InputHandling, InputStream, input
from realtime_runs.live.chunks import Chunk
from realtime_runs.live.closing import Signal
from realtime_runs.live.items import StreamRecord, StreamRestarted
from realtime_runs.live.stream_follow import ChunkReader
from realtime_runs.models import StreamName
from realtime_runs.models.stream import APPEND, OUTPUT, RESTART
from realtime_runs.runs import RunArgument

__all__ = [
    "InputHandling",
    "InputStream",
    "Stream",
    "StreamReader",
    "StreamRecord",
    "StreamRestarted",
    "StreamWriter",
    "aappend",
    "aclose",
    "apipe",
    "append",
    "close",
    "define",
    "input",
    "pipe",
    "read",
    "writer",
]

T = TypeVar("T")

RunTarget = RunArgument | Literal["self", "parent", "root"]
Start = Literal["latest"]


class StreamReader(ChunkReader[T]):
    """The chunks of a stream, live: see ChunkReader. A `StreamRestarted` comes among them where a new attempt began a
    stream anew that was defined with `on_retry="restart"`.
    """

    def __init__(self, name: StreamName, codec: Codec[T], **options: Any) -> None:
        super().__init__(name, lambda chunk: codec.decode(chunk.data), **options)
        self._codec = codec
        self._options = options

    def records(self) -> ChunkReader[StreamRecord[T]]:
        """The same as `StreamRecord`s: index, chunk, attempt, time and id."""

        def convert(chunk: Chunk) -> StreamRecord[T]:
            return StreamRecord(chunk.index, self._codec.decode(chunk.data), chunk.attempt, chunk.at, chunk.record_id)

        return ChunkReader(self.name, convert, **self._options)

    def as_response(self, request: HttpRequest | None = None) -> StreamingHttpResponse:
        """The stream as Server-Sent Events, to be returned from a view; with the `request`, a client that was cut off
        goes on behind its Last-Event-ID. Check first who may read the run: this does not.

        In an async view it lasts until the stream ends, nothing came for the time-out, or the client leaves, which
        never touches the run. Elsewhere it ends after 25 s, and an EventSource comes back for the rest. Events: see
        `realtime_runs.sse`.
        """
        return sse.answer(request, self.name, **self._options)


class Stream(Generic[T]):
    """A stream by key, with the type of its chunks. One object serves all runs."""

    def __init__(self, key: str, type_: Any, on_retry: str) -> None:
        self.key = key
        self.on_retry = on_retry
        self._codec: Codec[T] = Codec(type_, key)

    def append(
        self,
        chunk: T,
        *,
        target: RunTarget = "self",
        producer: str = "",
        sequence: int | None = None,
        record_id: str = "",
    ) -> int:
        """Store one chunk and return its index; when it returns, the chunk is committed.

        Inside of `atomic()` it joins that transaction. `producer` (at most 64 characters) with `sequence` (from 0), or
        `record_id` (at most 255), make it safe to repeat: what is stored already gives its index again. Raises
        ChunkInvalid, NotJson, TooLarge, StreamClosed, RunNotFound, NotInsideRun, InvalidOption.
        """
        refuse_to_block("append()", "await aappend()")
        to = Target(self.key, target, on_retry=self.on_retry)
        (index,) = to.write(to.append([self._codec.encode(chunk)], **_identity(producer, sequence, record_id)))
        return index

    async def aappend(
        self,
        chunk: T,
        *,
        target: RunTarget = "self",
        producer: str = "",
        sequence: int | None = None,
        record_id: str = "",
    ) -> int:
        to = Target(self.key, target, on_retry=self.on_retry)
        (index,) = await to.awrite(to.append([self._codec.encode(chunk)], **_identity(producer, sequence, record_id)))
        return index

    def close(self, *, target: RunTarget = "self") -> None:
        """Say that no more chunks come: readers end with `end_reason` "closed". A run closes its streams at its end."""
        refuse_to_block("close()", "await aclose()")
        to = Target(self.key, target, on_retry=self.on_retry)
        to.write(to.close("closed"))

    async def aclose(self, *, target: RunTarget = "self") -> None:
        to = Target(self.key, target, on_retry=self.on_retry)
        await to.awrite(to.close("closed"))

    def pipe(self, source: Source[T], *, target: RunTarget = "self") -> Pipe[T]:
        """Store everything that an iterable gives (a generator, a file, the stream of an LLM's client), as it comes.

        Iterate over the pipe to see the chunks too, or call its `wait_until_complete()`, or go on: the run waits for it
        before it completes. In async code: `apipe`. Raises NotInsideRun.
        """
        refuse_to_block("pipe()", "apipe()")
        return Pipe(source, self._sink(target))

    def apipe(self, source: Source[T], *, target: RunTarget = "self") -> AsyncPipe[T]:
        """The same in async code, for any iterable or async iterable: `async for` over it, or `await
        pipe.wait_until_complete()`, or go on. Not to be awaited itself.
        """
        return AsyncPipe(source, self._sink(target))

    def writer(self, *, target: RunTarget = "self") -> StreamWriter[T]:
        """`with stream.writer() as writer`: `write` chunks without waiting for each, `merge` whole iterables; all is
        stored when the block ends. In async code `async with`, `awrite` and `merge`.
        """
        return StreamWriter(lambda: self._sink(target))

    def decode(self, data: bytes) -> T:
        """The value of a stored chunk."""
        return self._codec.decode(data)

    def _sink(self, target: RunTarget) -> Sink:
        return Sink(Target(self.key, target, on_retry=self.on_retry), self._codec.encode)

    def read(
        self,
        run: RunArgument,
        *,
        start_index: int = 0,
        start: Start | None = None,
        timeout_in_seconds: Duration | None = None,
        signal: Signal | None = None,
    ) -> StreamReader[T]:
        """Read the stream of a run: what is stored, then what comes, until it is closed.

        `start="latest"` begins with what comes next. `timeout_in_seconds` (default STREAM_TIMEOUT_SECONDS, 60):
        StreamTimeout when nothing came for so long. `signal`: an `asyncio.Event` or `threading.Event` that ends it with
        StreamAborted. Raises InvalidOption here, RunNotFound in the loop.
        """
        if not isinstance(start_index, int) or isinstance(start_index, bool) or not 0 <= start_index < 2**63:
            raise InvalidOption(f"start_index is a whole number from 0 on, not {start_index!r}.")
        if start not in (None, "latest"):
            raise InvalidOption(f'start can only be "latest", not {start!r}.')
        timeout = app_settings.STREAM_TIMEOUT_SECONDS if timeout_in_seconds is None else timeout_in_seconds
        seconds = parse_duration(timeout).total_seconds()
        if seconds <= 0:
            raise InvalidOption("timeout_in_seconds must be positive.")
        name = self._name(run)
        index = None if start == "latest" else start_index
        return StreamReader(name, self._codec, start_index=index, timeout=seconds, signal=signal)

    def last_sequence(self, run: RunArgument, producer: str) -> int:
        """The highest sequence that is stored of this producer, -1 if none: where to go on after a crash."""
        return last_sequence(self._name(run), producer)

    async def alast_sequence(self, run: RunArgument, producer: str) -> int:
        return await sync_to_async(self.last_sequence)(run, producer)

    def _name(self, run: RunArgument) -> StreamName:
        run_id = run if isinstance(run, str) else run.id
        return StreamName(check_run_id(run_id), OUTPUT, check_key(self.key))


def _identity(producer: str, sequence: int | None, record_id: str) -> dict[str, Any]:
    """What makes a write repeatable. Raises InvalidOption."""
    if bool(producer) != (sequence is not None):
        raise InvalidOption("Give producer and sequence together.")
    if producer and record_id:
        raise InvalidOption("Give a record_id, or a producer and sequence, not both.")
    if len(producer) > 64 or len(record_id) > 255:
        raise InvalidOption("A producer has at most 64 characters, a record_id at most 255.")
    if sequence is not None and not 0 <= sequence < 2**63:
        raise InvalidOption(f"A sequence is a whole number from 0 on, not {sequence!r}.")
    if producer:
        return {"producer": producer, "sequences": [sequence]}
    return {"record_id": record_id} if record_id else {}


@overload
def define(key: str, type_: type[T], *, on_retry: Literal["append", "restart"] = "append") -> Stream[T]: ...
@overload
def define(key: str, type_: Any = Any, *, on_retry: Literal["append", "restart"] = "append") -> Stream[Any]: ...
def define(key: str, type_: Any = Any, *, on_retry: Literal["append", "restart"] = "append") -> Stream[Any]:
    """Declare a stream: its key (at most 255 characters) and the type of its chunks, which pydantic checks.

    `on_retry="restart"`: when a new attempt of the run writes, readers get a StreamRestarted and only its chunks; by
    default they get the chunks of all attempts. Raises InvalidOption for a bad key.
    """
    if on_retry not in (APPEND, RESTART):
        raise InvalidOption(f'on_retry is "append" or "restart", not {on_retry!r}.')
    return Stream(check_key(key), type_, on_retry)


def append(key: str, chunk: Any, *, target: RunTarget = "self", **identity: Any) -> int:
    """Store one chunk of any JSON value: see `Stream.append`."""
    return _stream(key).append(chunk, target=target, **identity)


async def aappend(key: str, chunk: Any, *, target: RunTarget = "self", **identity: Any) -> int:
    return await _stream(key).aappend(chunk, target=target, **identity)


def pipe(key: str, source: Source[T], *, target: RunTarget = "self") -> Pipe[T]:
    """Store everything that an iterable gives: see `Stream.pipe`."""
    return cast("Pipe[T]", _stream(key).pipe(source, target=target))


def apipe(key: str, source: Source[T], *, target: RunTarget = "self") -> AsyncPipe[T]:
    return cast("AsyncPipe[T]", _stream(key).apipe(source, target=target))


def writer(key: str, *, target: RunTarget = "self") -> StreamWriter[Any]:
    """Write many chunks: see `Stream.writer`."""
    return _stream(key).writer(target=target)


def close(key: str, *, target: RunTarget = "self") -> None:
    """Say that no more chunks come: see `Stream.close`."""
    _stream(key).close(target=target)


async def aclose(key: str, *, target: RunTarget = "self") -> None:
    await _stream(key).aclose(target=target)


def read(run: RunArgument, key: str = DEFAULT_KEY, **options: Any) -> StreamReader[Any]:
    """Read a stream of a run as plain JSON values: see `Stream.read`."""
    return _stream(key).read(run, **options)


def _stream(key: str) -> Stream[Any]:
    return Stream(check_key(key), Any, APPEND)
