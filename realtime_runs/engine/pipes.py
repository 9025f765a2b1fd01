"""Storing what an iterable gives, while it gives it.

A pipe begins at once. It belongs to the run that made it: drained before the run completes, ended when the run fails or
is stopped. What its source raises closes the stream with the reason `error`, is raised where the pipe is waited for or
iterated, and otherwise fails the run: nothing is swallowed.
"""

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final, Generic, TypeVar, cast

from asgiref.sync import sync_to_async
from django.db import connections

from realtime_runs.engine.feeding import Sink
from realtime_runs.exceptions import LeaseLost, PipeOverrun, RunStopped

T = TypeVar("T")
Source = Iterable[T] | AsyncIterable[T]

_MOST_HELD: Final = 10_000  # chunks that a pipe keeps for a loop over it
_END: Final = object()


class AnyPipe(Generic[T]):
    """What pipes in sync and in async code share."""

    def __init__(self, source: Source[T], sink: Sink) -> None:
        self._source = source
        self._sink = sink
        self._held: deque[T] = deque()  # stored, and not iterated over yet
        self._is_iterated = False
        self._is_overrun = False
        self._was_asked = False
        #: Done when everything is stored; with what the source, or the storing, has raised.
        self.done: Future[None] = Future()
        self.done.set_running_or_notify_cancel()  # who is cancelled while it waits must not cancel it for others
        active = sink.target.active
        self._signal = active.context.signal if active else threading.Event()
        if active is not None:
            active.pipes.append(self)

    def stop(self) -> None:
        """End it soon."""
        raise NotImplementedError

    def unheard_error(self) -> BaseException | None:
        """What it raised, if nobody was told. Only when it is done."""
        return None if self._was_asked else self.done.exception()

    def _begin_loop(self) -> None:
        self._was_asked = True
        if self._is_overrun:
            raise PipeOverrun(_MOST_HELD)
        self._is_iterated = True

    def _hold(self, value: T) -> None:
        if len(self._held) >= _MOST_HELD and not self._is_iterated:
            self._is_overrun = True
            self._held.clear()
        if not self._is_overrun:
            self._held.append(value)

    @property
    def _must_pause(self) -> bool:
        """Whether a loop over it is slower than its source."""
        return self._is_iterated and len(self._held) >= _MOST_HELD

    def _is_ours(self, error: BaseException) -> bool:
        """Whether the source is to blame, and the stream still ours to close."""
        return not isinstance(error, RunStopped | LeaseLost | asyncio.CancelledError | GeneratorExit)


class Pipe(AnyPipe[T]):
    """A pipe in sync code, with a thread of its own. Iterate over it to see the chunks that it stores, or call
    `wait_until_complete()`; both raise what its source raised, StreamClosed, ChunkInvalid and the like. What was stored
    before a loop begins is kept for it, up to 10,000 chunks; after that the loop raises PipeOverrun.
    """

    def __init__(self, source: Source[T], sink: Sink) -> None:
        super().__init__(source, sink)
        self._changed = threading.Condition()
        self._is_stopped = False
        if sink.is_inline:
            self._pump()  # a test: nothing runs beside it
        else:
            run = contextvars.copy_context().run
            threading.Thread(target=run, args=(self._pump_in_thread,), name="realtime-runs-pipe", daemon=True).start()

    def wait_until_complete(self) -> None:
        """Until everything is stored."""
        self._was_asked = True
        self.done.result()

    def __iter__(self) -> Iterator[T]:
        self._begin_loop()
        while (value := self._next()) is not _END:
            yield value
        self.done.result()

    def _next(self) -> Any:
        with self._changed:
            self._changed.wait_for(lambda: self._held or self.done.done())
            value = self._held.popleft() if self._held else _END
            self._changed.notify_all()
            return value

    def stop(self) -> None:
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    def _pump_in_thread(self) -> None:
        try:
            self._pump()
        finally:
            connections.close_all()

    def _pump(self) -> None:
        error: BaseException | None = None
        try:
            if isinstance(self._source, AsyncIterable):
                asyncio.run(self._take_all(self._source))
            else:
                for value in self._source:
                    self._take(value)
            self._sink.drain()
        except BaseException as raised:
            error = raised
            self._settle(raised)
        with self._changed:
            if error is None:
                self.done.set_result(None)
            else:
                self.done.set_exception(error)
            self._changed.notify_all()

    async def _take_all(self, source: AsyncIterable[T]) -> None:
        async for value in source:
            await sync_to_async(self._take, thread_sensitive=False)(value)

    def _take(self, value: T) -> None:
        with self._changed:
            while self._must_pause and not self._must_stop:
                self._changed.wait(0.1)
        if self._must_stop:
            raise RunStopped(self._sink.target.name.run_id)
        self._sink.put(value)
        with self._changed:
            self._hold(value)
            self._changed.notify_all()

    @property
    def _must_stop(self) -> bool:
        return self._is_stopped or self._signal.is_set()

    def _settle(self, error: BaseException) -> None:
        """What was taken is stored all the same, also when the worker is told to go."""
        with suppress(Exception):  # if the storing itself has failed, that is the error that is raised
            self._sink.drain()
            if self._is_ours(error):
                self._sink.fail()


class AsyncPipe(AnyPipe[T]):
    """The same in async code, as a task of the running event loop: for `async for`, and `await wait_until_complete()`.
    A source that is not async is read in a thread.
    """

    def __init__(self, source: Source[T], sink: Sink) -> None:
        super().__init__(source, sink)
        self._changed = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._pump())

    async def wait_until_complete(self) -> None:
        """Until everything is stored."""
        self._was_asked = True
        await asyncio.wrap_future(self.done)

    async def __aiter__(self) -> AsyncIterator[T]:
        self._begin_loop()
        while True:
            while self._held:
                value = self._held.popleft()
                self._changed.set()
                yield value
            if self.done.done():
                self.done.result()
                return
            self._changed.clear()
            await self._changed.wait()

    def stop(self) -> None:
        self._task.get_loop().call_soon_threadsafe(self._task.cancel)

    async def _pump(self) -> None:
        error: BaseException | None = None
        try:
            async for value in _async(self._source):
                await self._sink.aput(value)
                self._hold(value)
                self._changed.set()
                while self._must_pause:
                    self._changed.clear()
                    await self._changed.wait()
            await self._sink.adrain()
        except BaseException as raised:
            error = raised
            await self._settle(raised)
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)
        self._changed.set()

    async def _settle(self, error: BaseException) -> None:
        with suppress(Exception):
            await self._sink.adrain()
            if self._is_ours(error):
                await self._sink.afail()


async def _async(source: Source[T]) -> AsyncIterator[T]:
    if isinstance(source, AsyncIterable):
        async for value in source:
            yield value
    else:
        iterator = iter(source)
        step = sync_to_async(lambda: next(iterator, _END), thread_sensitive=False)
        while (item := await step()) is not _END:
            yield cast(T, item)


async def drain(pipes: list[AnyPipe[Any]]) -> None:
    """Until all pipes of a run are done, also those that are made meanwhile. Raises what nobody was told of."""
    for pipe in pipes:  # grows while we wait
        await asyncio.wait([_done(pipe)])
        if error := pipe.unheard_error():
            raise error


async def stop(pipes: list[AnyPipe[Any]]) -> None:
    """End the pipes of a run that has failed; those that can be ended at once are waited for."""
    for pipe in pipes:
        pipe.stop()
    if ending := [_done(pipe) for pipe in pipes if isinstance(pipe, AsyncPipe)]:
        await asyncio.wait(ending, timeout=1)


def _done(pipe: AnyPipe[Any]) -> "asyncio.Future[None]":
    done = asyncio.wrap_future(pipe.done)
    done.add_done_callback(lambda done: done.cancelled() or done.exception())  # or asyncio complains of the latter
    return done
