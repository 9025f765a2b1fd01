"""The other direction of streams: anybody sends records to a run, its task takes them. Public as `streams.input`."""

import time
from collections.abc import Awaitable, Callable
from typing import Any, Generic, Literal, TypeVar, overload

from realtime_runs.database import read
from realtime_runs.durations import Duration, parse_duration
from realtime_runs.engine.codec import Codec
from realtime_runs.engine.context import active_run, refuse_to_block
from realtime_runs.engine.input_handling import InputHandling, is_async
from realtime_runs.engine.inputs import anext_data, look, next_data
from realtime_runs.engine.pausing import NEVER, aread, check_can_pause
from realtime_runs.engine.writing import Target, check_key
from realtime_runs.models import StreamName
from realtime_runs.models.stream import INPUT
from realtime_runs.runs import RunArgument

__all__ = ["InputHandling", "InputStream", "input"]

T = TypeVar("T")

InputTarget = RunArgument | Literal["self", "parent", "root"]


class InputStream(Generic[T]):
    """An input stream by key, with the type of its records. One object serves all runs.

    Records are kept, also those that were sent before the task asks. Each is given once, to one of those who ask, and
    what an attempt has taken is not given to the next one.
    """

    def __init__(self, key: str, type_: Any) -> None:
        self.key = key
        self._codec: Codec[T] = Codec(type_, key, "The input", "MAX_INPUT_BYTES")

    # -- from anywhere ------------------------------------------------------------------------------------------------

    def send(self, run: InputTarget, data: T | dict[str, Any]) -> None:
        """Send a record to a run, in any status but a final one; when it returns, the record is committed.

        Inside of `atomic()` it joins that transaction. Raises ChunkInvalid when it does not fit the type, NotJson,
        TooLarge above MAX_INPUT_BYTES (1 MiB), StreamClosed when the run is final, RunNotFound.
        """
        refuse_to_block("send()", "await asend()")
        to = Target(self.key, run, kind=INPUT)
        to.write(to.append([self._codec.encode(data)]))

    async def asend(self, run: InputTarget, data: T | dict[str, Any]) -> None:
        to = Target(self.key, run, kind=INPUT)
        await to.awrite(to.append([self._codec.encode(data)]))

    # -- inside a task ------------------------------------------------------------------------------------------------

    def once(self, timeout: Duration | None = None) -> T:
        """Take the next record, also one that was sent earlier, and return its data.

        Raises WaitTimeout when none came within `timeout` (default: it waits for ever), RunStopped when the run is told
        to stop, NotInsideRun, ChunkInvalid when what was sent does not fit the type.
        """
        active = check_can_pause("once()", "await aonce()")
        return self._codec.decode(next_data(active, self._name(active.run.id), _until(timeout), pauses=False))

    async def aonce(self, timeout: Duration | None = None) -> T:
        active = active_run("aonce()")
        return self._codec.decode(await anext_data(active, self._name(active.run.id), _until(timeout), pauses=False))

    def wait(self, timeout: Duration | None = None) -> T:
        """Like `once`, but while nothing is there the run is WAITING, and its slot is free for other runs."""
        active = check_can_pause("wait()", "await await_()")
        return self._codec.decode(next_data(active, self._name(active.run.id), _until(timeout), pauses=True))

    async def await_(self, timeout: Duration | None = None) -> T:
        active = active_run("await_()")
        return self._codec.decode(await anext_data(active, self._name(active.run.id), _until(timeout), pauses=True))

    def on(self, handler: Callable[[T], Any] | Callable[[T], Awaitable[Any]]) -> InputHandling:
        """Call a function, sync or async, for each record beside the task, until it ends or the returned object is
        closed. May be called in sync and in async code; a sync handler runs in a thread.
        """
        active = active_run("on()")

        def handle(data: bytes) -> Any:
            return handler(self._codec.decode(data))

        return InputHandling(active, self._name(active.run.id), handle, is_async=is_async(handler))

    def peek(self) -> T | None:
        """The data of the record that would be taken next, without taking it; None when there is none."""
        active = active_run("peek()")
        refuse_to_block("peek()", "await apeek()")
        found = read(look, self._name(active.run.id))
        return None if found is None else self._codec.decode(found)

    async def apeek(self) -> T | None:
        name = self._name(active_run("apeek()").run.id)
        found = await aread(lambda: look(name))
        return None if found is None else self._codec.decode(found)

    def _name(self, run_id: str) -> StreamName:
        return StreamName(run_id, INPUT, self.key)


def _until(timeout: Duration | None) -> float:
    return NEVER if timeout is None else time.monotonic() + parse_duration(timeout, "timeout").total_seconds()


@overload
def input(key: str, type_: type[T]) -> InputStream[T]: ...
@overload
def input(key: str, type_: Any = Any) -> InputStream[Any]: ...
def input(key: str, type_: Any = Any) -> InputStream[Any]:
    """Declare an input stream: its key (at most 255 characters) and the type of its records, which pydantic checks.

    Raises InvalidOption for a bad key.
    """
    return InputStream(check_key(key), type_)
