"""Which stream is meant, with what right, and through which writer: for everything that appends."""

from collections.abc import Sequence
from typing import Any, Final

from django.db import transaction

from realtime_runs.conf import app_settings
from realtime_runs.engine.appending import Append
from realtime_runs.engine.backends.base import get_backend
from realtime_runs.engine.context import ActiveRun, Writer, find_active
from realtime_runs.engine.writer import InlineWriter, process_writer
from realtime_runs.exceptions import InvalidOption, NotInsideRun, RunNotFound
from realtime_runs.ids import is_possible
from realtime_runs.live.chunks import End
from realtime_runs.models import Run, StreamName
from realtime_runs.models.stream import APPEND, OUTPUT
from realtime_runs.packets import check_text

DEFAULT_KEY: Final = "default"
_inline: Final = InlineWriter()


def check_run_id(run_id: str) -> str:
    """Raises RunNotFound for an id that no run can have: others may be written in the same commit."""
    if not is_possible(run_id):
        raise RunNotFound(run_id)
    return run_id


def check_key(key: str) -> str:
    """Raises InvalidOption or NotJson for a key that no stream can have."""
    if not isinstance(key, str) or not 0 < len(key) <= app_settings.MAX_STREAM_KEY_LENGTH:
        raise InvalidOption(f"A stream key is a text of 1 to {app_settings.MAX_STREAM_KEY_LENGTH} characters.")
    check_text(key, "The stream key")
    return key


class Target:
    """A stream that somebody writes: `self`, `parent` or `root` of the running run, or any run by id."""

    def __init__(self, key: str, target: Any, *, kind: str = OUTPUT, on_retry: str = APPEND) -> None:
        """Raises NotInsideRun for a target that needs a running run."""
        self.active = find_active()
        self.name = StreamName(_run_id(self.active, target), kind, check_key(key))
        self._on_retry = on_retry

    @property
    def writer(self) -> Writer:
        if self.active is not None:
            return self.active.writer
        return _inline if get_backend().executes_inline else process_writer()

    def append(self, chunks: Sequence[bytes], **more: Any) -> Append:
        lease = self.active.lease if self.active else None
        return Append(self.name, list(chunks), lease, on_retry=self._on_retry, **more)

    def write(self, append: Append) -> list[int]:
        """Store and wait for the commit; inside of `atomic()` it joins that transaction."""
        if transaction.get_connection().in_atomic_block:
            return append()
        return self.writer.write(append)

    async def awrite(self, append: Append) -> list[int]:
        return await self.writer.awrite(append)

    def close(self, reason: str) -> Append:
        return self.append([], closes=End(reason))


def _run_id(active: ActiveRun | None, target: Any) -> str:
    if target in ("self", "parent", "root"):
        if active is None:
            raise NotInsideRun(f"A stream with target={target!r}")
        run = active.run
        own: str = run.id
        return {"self": own, "parent": run.parent_id or own, "root": run.root_id or own}[target]
    return check_run_id(target if isinstance(target, str) else str(target.id))


def run_id_of(run: Run, target: str) -> str:
    """Which run `self`, `parent` or `root` is for somebody who works for `run` elsewhere. Raises RunNotFound."""
    if target == "parent" and not run.parent_id:
        raise RunNotFound(f"parent of {run.pk}")
    return {"self": run.pk, "parent": str(run.parent_id), "root": run.root_id or run.pk}[target]
