"""The live metadata of the running task: a JSON object that followers see change.

Calls are collected and written at most every METADATA_FLUSH_SECONDS (100 ms), on `flush()`, and always before the run
ends. A key is literal, dots included, unless it begins with `$.`: then it is a path (`$.rows.0.state`). Concurrent
writers lose nothing.

    metadata.set("progress", {"current": 1, "total": 10}).increment("rows", 100).append("log", "started")
    metadata.parent.increment("done", 1)      # the run that triggered this one; itself when there is none
    metadata.root.set("phase", "import")      # the run at the top

All functions raise NotInsideRun outside of a task, NotJson or InvalidOption for a bad value, TooLarge above 256 KiB.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, Self

from realtime_runs.engine.context import ActiveRun, active_run, refuse_to_block
from realtime_runs.engine.operations import Operation

__all__ = [
    "MetadataWriter",
    "aflush",
    "append",
    "current",
    "decrement",
    "delete",
    "flush",
    "get",
    "increment",
    "parent",
    "remove",
    "replace",
    "root",
    "set",
]


class MetadataWriter:
    """The operations, on the running run or one above it. Each returns the writer, so that calls can be chained."""

    def __init__(self, target: Callable[[ActiveRun], str]) -> None:
        self._target = target

    def set(self, key: str, value: Any) -> Self:
        """Set a key. In a path, missing parents are not created: `set("$.a.b", 1)` on `{}` does nothing."""
        return self._record(Operation("set", key, value))

    def delete(self, key: str) -> Self:
        """Remove a top-level key, if it is there."""
        return self._record(Operation("delete", key))

    def append(self, key: str, value: Any) -> Self:
        """Add one element to a list; a missing key becomes a list, any other value becomes its first element."""
        return self._record(Operation("append", key, value))

    def remove(self, key: str, value: Any) -> Self:
        """Remove all elements of a list that equal the value; anything but a list is left alone."""
        return self._record(Operation("remove", key, value))

    def increment(self, key: str, by: float = 1) -> Self:
        """Add to a number; anything that is not a number counts as 0."""
        return self._record(Operation("increment", key, by))

    def decrement(self, key: str, by: float = 1) -> Self:
        return self._record(Operation("increment", key, -by))

    def replace(self, metadata: Mapping[str, Any]) -> Self:
        """Replace the whole object."""
        return self._record(Operation("update", "", dict(metadata)))

    def _record(self, operation: Operation) -> Self:
        active = active_run("metadata")
        active.metadata.record(self._target(active), operation)
        return self


_own: Final = MetadataWriter(lambda active: active.run.id)
parent: Final = MetadataWriter(lambda active: active.run.parent_id or active.run.id)
root: Final = MetadataWriter(lambda active: active.run.root_id or active.run.id)

set = _own.set
delete = _own.delete
append = _own.append
remove = _own.remove
increment = _own.increment
decrement = _own.decrement
replace = _own.replace


def current() -> dict[str, Any]:
    """The run's metadata with everything set so far, written or not. A copy: changing it changes nothing."""
    return active_run("metadata").metadata.current


def get(key: str, default: Any = None) -> Any:
    """The value of a top-level key."""
    return current().get(key, default)


def flush() -> None:
    """Write what was set so far and wait until it is committed. Raises what went wrong; then nothing is forgotten.

    Inside of `atomic()` it joins that transaction: seen when that is committed, gone when it is rolled back. In async
    code use `await aflush()`; this one raises SynchronousOnlyOperation there.
    """
    active = active_run("metadata")
    refuse_to_block("metadata.flush()", "await metadata.aflush()")
    active.metadata.flush()


async def aflush() -> None:
    await active_run("metadata").metadata.aflush()
