"""The history of runs: an event for each status they enter, an end for each attempt, and the bells of all that.

Rows are collected while a transaction goes on and written at its end, so that a hundred moves in one commit cost one
insert.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from django.db import connection

from realtime_runs.engine.stream_rows import close_streams_of
from realtime_runs.live import bell
from realtime_runs.models import Attempt, Change, FromNow, RunEvent, database_now
from realtime_runs.models.bulk import insert_many
from realtime_runs.models.prepared import Place, Prepared, places
from realtime_runs.statuses import FINAL, RunStatus


@dataclass(slots=True)
class _Ledger:
    events: list[tuple[Change, RunStatus]] = field(default_factory=list)
    ended: dict[str, list[str]] = field(default_factory=dict)  # error text → ids of the runs whose attempt ended
    work: list[str] = field(default_factory=list)
    final: dict[str, list[str]] = field(default_factory=dict)  # status → ids of the runs that ended with it


_open: Final[ContextVar[_Ledger | None]] = ContextVar("realtime_runs_ledger", default=None)


@contextmanager
def opened() -> Iterator[None]:
    """Inside a transaction: collect what happens, and write it when the block ends.

    Nested blocks join the outer one.
    """
    if _open.get() is not None:
        yield
        return
    ledger = _Ledger()
    token = _open.set(ledger)
    try:
        yield
    finally:
        _open.reset(token)
    _write(ledger)


def entered(changes: Sequence[Change], status: RunStatus) -> None:
    """These runs entered the status."""
    with opened():
        ledger = _current()
        ledger.events += [(change, status) for change in changes]
        ids = [change.run_id for change in changes]
        if status == RunStatus.QUEUED:
            ledger.work += ids
        if status in FINAL:
            ledger.final.setdefault(status.lower(), []).extend(ids)


def attempt_ended(changes: Sequence[Change], error: str = "") -> None:
    """The attempts of these runs that are going on are over. `error`: JSON of a RunError, or empty."""
    with opened():
        _current().ended.setdefault(error, []).extend(change.run_id for change in changes)


def needs_worker(run_ids: Sequence[str]) -> None:
    """A worker should look at these runs."""
    with opened():
        _current().work += run_ids


def _current() -> _Ledger:
    ledger = _open.get()
    if ledger is None:
        raise RuntimeError("The ledger is not open.")
    return ledger


def _write(ledger: _Ledger) -> None:
    for reason, ids in ledger.final.items():
        close_streams_of(ids, reason)
    for error, ids in ledger.ended.items():
        _prepared_end(connection.vendor, len(ids)).execute(run=ids, error=error)
    if ledger.events:
        now = database_now()
        rows = [(change.run_id, status, change.attempt, now) for change, status in ledger.events]
        insert_many(RunEvent, ("run_id", "status", "attempt", "at"), rows)
        bell.announce([change for change, _ in ledger.events])
    bell.announce_work(ledger.work)


@lru_cache
def _prepared_end(vendor: str, count: int) -> Prepared:
    going_on = Attempt.objects.filter(run__in=places("run", count), finished_at=None)
    return Prepared.update(going_on, {"finished_at": FromNow(), "error": Place("error")})
