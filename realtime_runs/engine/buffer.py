"""The metadata a running task sets: kept here, written at most every METADATA_FLUSH_SECONDS and before the end."""

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from realtime_runs.conf import app_settings
from realtime_runs.engine.context import Lease, Writer
from realtime_runs.engine.editing import edit_metadata
from realtime_runs.engine.operations import Operation, apply
from realtime_runs.engine.options import check_metadata_size
from realtime_runs.exceptions import InvalidInput, LeaseLost
from realtime_runs.live.snapshot import RealtimeRun
from realtime_runs.packets import encode

logger = logging.getLogger("realtime_runs.engine")

_RETRY_SECONDS: Final = 1.0

Pending = list[tuple[str, Operation]]  # run id and operation, in the order of the calls


class MetadataBuffer:
    """Calls may come from any thread of the task. Operations stay in the buffer until they are committed."""

    def __init__(
        self, run: RealtimeRun, lease: Lease, writer: Writer, later: Callable[[float, Callable[[], None]], None]
    ) -> None:
        self._run_id = run.id
        self._lease = lease
        self._writer = writer
        self._later = later  # call something on the worker's loop after so many seconds, from any thread
        self._lock = threading.Lock()
        self._flushing = threading.Lock()  # one flush at a time, or a later one could overtake
        self._pending: Pending = []
        self._is_scheduled = False
        self._flushed_at = 0.0
        self._error: Exception | None = None
        self._current: dict[str, Any] = json.loads(run.metadata_json)

    def record(self, run_id: str, operation: Operation) -> None:
        """Raises NotJson, TooLarge (of the run's own metadata), or the error of an earlier write that could not be
        made.
        """
        if operation.key:
            encode(operation.key, "metadata key")
        operation = Operation(operation.kind, operation.key, _plain(operation.value))
        with self._lock:
            self._raise_error()
            if run_id == self._run_id:
                current = apply([operation], self._current)
                check_metadata_size(encode(current, "metadata"))
                self._current = current
            last = self._pending[-1] if self._pending else None
            if (
                last
                and operation.kind == "set"
                and last[0] == run_id
                and last[1].kind == "set"
                and last[1].key == operation.key
            ):
                self._pending.pop()  # nobody has seen it: a task that sets one key in a hot loop keeps one operation
            self._pending.append((run_id, operation))
            must_schedule = not self._is_scheduled
            self._is_scheduled = True
        if must_schedule:
            wait = self._flushed_at + app_settings.METADATA_FLUSH_SECONDS - time.monotonic()
            self._later(max(0.0, wait), self._flush_in_background)

    @property
    def current(self) -> dict[str, Any]:
        """The run's own metadata, with what is not written yet. A copy."""
        with self._lock:
            copy: dict[str, Any] = _plain(self._current)
            return copy

    def flush(self) -> None:
        """Write what is pending and wait for the commit.

        Raises LeaseLost, TooLarge, or the database's error; then it is still pending.
        """
        with self._flushing:
            if pending := self._take():
                try:
                    result = self._writer.write(lambda: self._write(pending))
                except Exception:
                    self._put_back(pending)
                    raise
                self._settle(result)
        self._raise_error()

    async def aflush(self) -> None:
        while not self._flushing.acquire(blocking=False):
            await asyncio.sleep(0.001)  # a thread of the task is flushing; it needs a commit, not us
        try:
            if pending := self._take():
                try:
                    result = await self._writer.awrite(lambda: self._write(pending))
                except Exception:  # not a cancellation: then the write goes on, and must not be made twice
                    self._put_back(pending)
                    raise
                self._settle(result)
        finally:
            self._flushing.release()
        self._raise_error()

    def _flush_in_background(self) -> None:
        """On the worker's loop."""
        task = asyncio.ensure_future(self.aflush())
        task.add_done_callback(self._background_flush_ended)

    def _background_flush_ended(self, task: "asyncio.Future[None]") -> None:
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, LeaseLost):
            # Not dropped: still pending, tried again soon and before the run ends, and raised from there.
            logger.warning("Metadata of run %s could not be written yet: %s", self._run_id, error)
            with self._lock:
                must_schedule = bool(self._pending) and not self._is_scheduled
                self._is_scheduled = self._is_scheduled or must_schedule
            if must_schedule:
                self._later(_RETRY_SECONDS, self._flush_in_background)

    def _take(self) -> Pending:
        with self._lock:
            pending, self._pending = self._pending, []
            self._is_scheduled = False
        return pending

    def _put_back(self, pending: Pending) -> None:
        with self._lock:
            self._pending = pending + self._pending

    def _write(self, pending: Pending) -> tuple[dict[str, Any], InvalidInput | None]:
        operations: dict[str, list[Operation]] = {}
        for run_id, operation in pending:
            operations.setdefault(run_id, []).append(operation)
        return edit_metadata(self._lease, operations)

    def _settle(self, result: tuple[dict[str, Any], InvalidInput | None]) -> None:
        metadata, refused = result
        with self._lock:
            self._flushed_at = time.monotonic()
            own = [operation for run_id, operation in self._pending if run_id == self._run_id]
            self._current = apply(own, metadata)  # others may write it too: children, the API
            self._error = refused or self._error

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error


def _plain(value: Any) -> Any:
    """A copy as JSON has it, so that a later change by the task does not reach into the buffer."""
    return json.loads(encode(value, "metadata"))
