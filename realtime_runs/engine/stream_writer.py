"""A block that writes to one stream: single chunks, and whole iterables beside them."""

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar

from realtime_runs.engine.context import is_on_event_loop, refuse_to_block
from realtime_runs.engine.feeding import Sink
from realtime_runs.engine.pipes import AsyncPipe, Pipe, Source

T = TypeVar("T")


class StreamWriter(Generic[T]):
    """Writes many chunks to one stream: see `Stream.writer`. An error of one write is raised by a later one, or at the
    end of the block.
    """

    def __init__(self, make_sink: Callable[[], Sink]) -> None:
        self._make_sink = make_sink
        self._sink = make_sink()
        self._merged: list[Any] = []

    def write(self, chunk: T) -> None:
        """Hand over a chunk; blocks only when very many wait. Raises ChunkInvalid, NotJson, TooLarge, StreamClosed."""
        refuse_to_block("write()", "await awrite()")
        self._sink.put(chunk)

    async def awrite(self, chunk: T) -> None:
        await self._sink.aput(chunk)

    def merge(self, source: Source[T]) -> None:
        """Store everything that an iterable gives, beside what is written; in a thread, or in async code as a task."""
        kind = AsyncPipe if is_on_event_loop() else Pipe
        self._merged.append(kind(source, self._make_sink()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if error is not None:
            self._stop()
            return
        for pipe in self._merged:
            pipe.wait_until_complete()
        self._sink.drain()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if error is not None:
            self._stop()
            return
        for pipe in self._merged:
            await pipe.wait_until_complete()
        await self._sink.adrain()

    def _stop(self) -> None:
        for pipe in self._merged:
            pipe.stop()
