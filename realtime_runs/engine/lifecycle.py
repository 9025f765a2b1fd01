"""The moves of a run. The only place that writes `status`.

Every move is one guarded UPDATE: its WHERE clause is the lock, so of two racing moves exactly one changes the row.
Moves of a worker carry its lease in the WHERE; when nothing changed, the lease is lost and LeaseLost is raised before
anything else was written. The worker's moves run in the transaction of its `Writer`, which joins those of many runs;
the other functions open one if there is none.
"""

import os
import socket
from collections.abc import Collection, Iterable, Sequence
from datetime import timedelta
from functools import lru_cache
from typing import Any, Final

from django.db import connection
from django.db.models import Case, F, Value, When
from django.db.models.functions import Coalesce

from realtime_runs.conf import app_settings
from realtime_runs.engine import ledger, registry
from realtime_runs.engine.context import Lease
from realtime_runs.exceptions import LeaseLost
from realtime_runs.ids import new_lease_token
from realtime_runs.live import bell
from realtime_runs.live.snapshot import RunError
from realtime_runs.models import Attempt, Change, FromNow, IdempotencyClaim, Run, database_now
from realtime_runs.models.bulk import insert_many
from realtime_runs.models.prepared import NUMBER_PLACE, Place, Prepared, PreparedMove, places
from realtime_runs.models.returning import change_of
from realtime_runs.models.run import RunQuerySet, touched
from realtime_runs.packets import Packet
from realtime_runs.statuses import FINAL, FREES_IDEMPOTENCY_KEY, LEASED, RunStatus
from realtime_runs.turns import atomic

_UNLEASED: Final[dict[str, Any]] = {"lease_token": "", "lease_until": None}


def worker_name() -> str:
    """Who is working, for the people who look at attempts: host:pid."""
    return f"{socket.gethostname()[:100]}:{os.getpid()}"


# -- the worker's moves -----------------------------------------------------------------------------------------------


def has_ready(task_ids: Collection[str]) -> bool:
    """Whether a run of these tasks could be claimed."""
    return bool(_prepared_ready(connection.vendor, tuple(task_ids), 1, None, False).rows())


@atomic()
def claim(task_ids: Collection[str], limit: int, *, run_ids: Collection[str] | None = None) -> list[Run]:
    """Take up to `limit` ready runs of these tasks: EXECUTING, with a lease. The rows, in the order of the queue."""
    count = None if run_ids is None else len(run_ids)
    if not task_ids or count == 0:
        return []
    ready = _prepared_ready(connection.vendor, tuple(task_ids), limit, count, True)
    ids = [pk for (pk,) in ready.rows(run=tuple(run_ids or ()))]
    if not ids:
        return []
    taken = _prepared_claim(connection.vendor, len(ids), app_settings.LEASE_SECONDS)
    runs = taken.instances(Run, run=ids, token=new_lease_token())
    name, now = worker_name(), database_now()
    begun = [(run.pk, run.attempt, name, now, "") for run in runs]
    insert_many(Attempt, ("run_id", "number", "worker", "started_at", "error"), begun)
    ledger.entered([change_of(run) for run in runs], RunStatus.EXECUTING)
    place = {run_id: index for index, run_id in enumerate(ids)}
    return sorted(runs, key=lambda run: place[run.pk])


@lru_cache(maxsize=256)
def _prepared_ready(vendor: str, task_ids: tuple[str, ...], limit: int, count: int | None, locks: bool) -> Prepared:
    """Ids of ready runs, of `count` that are given or of all."""
    ready = Run.objects.ready().filter(task__in=task_ids)
    if count is not None:
        ready = ready.filter(pk__in=places("run", count))
    if locks:  # other workers skip what we have locked; SQLite has one writer at a time and needs no row locks
        ready = ready.select_for_update(skip_locked=True)
    return Prepared.read(ready.values_list("pk")[:limit])


@lru_cache(maxsize=256)
def _prepared_claim(vendor: str, count: int, lease_seconds: float) -> Prepared:
    ready = Run.objects.ready().filter(pk__in=places("run", count)).that_may_enter(RunStatus.EXECUTING)
    values = touched(
        status=RunStatus.EXECUTING,
        attempt=F("attempt") + 1,
        lease_token=Place("token"),
        lease_until=FromNow(lease_seconds),
        started_at=Coalesce(F("started_at"), FromNow()),
        expires_at=None,
    )
    return Prepared.update(ready, values, [field.attname for field in Run._meta.concrete_fields])


def complete(lease: Lease, output: Packet) -> None:
    hooked = tuple(registry.with_hook_after(RunStatus.COMPLETED))
    changes = _prepared_complete(connection.vendor, hooked).changes(
        lease.attempt, run_id=lease.run_id, token=lease.token, output=output.text, output_type=output.type
    )
    _finish_attempt(_held(changes, lease), RunStatus.COMPLETED)


@lru_cache
def _prepared_complete(vendor: str, hooked: tuple[str, ...]) -> PreparedMove:
    """The arguments are what its statement depends on."""
    runs = _leased(Lease(Place("run_id"), NUMBER_PLACE, Place("token"))).that_may_enter(RunStatus.COMPLETED)
    output = {"output": Place("output"), "output_type": Place("output_type")}
    return PreparedMove.of(runs, touched(status=RunStatus.COMPLETED, **output, **_final_values(RunStatus.COMPLETED)))


def fail(lease: Lease, error: RunError, *, status: RunStatus = RunStatus.FAILED) -> None:
    """End the run: FAILED, TIMED_OUT or SYSTEM_FAILURE."""
    changes = _leased(lease).move(status, error=error.to_json(), **_final_values(status))
    _finish_attempt(_held(changes, lease), status, error)


def retry(lease: Lease, error: RunError, seconds: float) -> None:
    """Back to the queue, to be tried again after so many seconds."""
    changes = _leased(lease).move(
        RunStatus.QUEUED, run_at=FromNow(seconds), rank=FromNow(seconds), queued_at=FromNow(), **_UNLEASED
    )
    _finish_attempt(_held(changes, lease), RunStatus.QUEUED, error)


def hand_back(leases: Iterable[Lease]) -> None:
    """Back to the queue free of charge, because the worker is going away: the attempt does not count.

    Lost leases are skipped.
    """
    changes: list[Change] = []
    for lease in leases:
        Attempt.objects.filter(run__in=_leased(lease), number=lease.attempt).delete()
        changes += _leased(lease).move(RunStatus.QUEUED, attempt=F("attempt") - 1, queued_at=FromNow(), **_UNLEASED)
    ledger.entered(changes, RunStatus.QUEUED)


def wait(lease: Lease) -> None:
    ledger.entered(_held(_leased(lease).move(RunStatus.WAITING), lease), RunStatus.WAITING)


def resume(lease: Lease) -> None:
    ledger.entered(
        _held(_leased(lease).filter(status=RunStatus.WAITING).move(RunStatus.EXECUTING), lease), RunStatus.EXECUTING
    )


@atomic()
def renew(leases: Sequence[Lease]) -> set[str]:
    """Extend the leases. Returns the ids of the runs that are still ours; a renewal is no change that followers see."""
    tokens = {lease.token for lease in leases}
    ids = [lease.run_id for lease in leases]
    ours = Run.objects.filter(pk__in=ids, lease_token__in=tokens, status__in=LEASED)
    _unlocked(ours).update(lease_until=FromNow(app_settings.LEASE_SECONDS))
    return still_ours(leases)


def still_ours(leases: Sequence[Lease]) -> set[str]:
    held = set(
        Run.objects.filter(pk__in=[lease.run_id for lease in leases], status__in=LEASED).values_list(
            "pk", "attempt", "lease_token"
        )
    )
    return {lease.run_id for lease in leases if (lease.run_id, lease.attempt, lease.token) in held}


# -- moves that anybody may make --------------------------------------------------------------------------------------


@atomic()
def cancel(run_ids: Sequence[str]) -> list[str]:
    """Cancel those of the runs that are not final. Returns their ids."""
    # In id order, so that two cancels of one family do not lock each other out.
    ids = list(
        Run.objects.filter(pk__in=run_ids).unfinished().select_for_update().order_by("pk").values_list("pk", flat=True)
    )
    changes = Run.objects.filter(pk__in=ids).move(RunStatus.CANCELED, **_final_values(RunStatus.CANCELED))
    _finish_attempt(changes, RunStatus.CANCELED)
    ledger.needs_worker([change.run_id for change in changes])  # whoever executes one of them should stop
    return [change.run_id for change in changes]


@atomic()
def reschedule(run_id: str, delay: timedelta) -> bool:
    """Give a delayed run another time. False, and no change, when it is not DELAYED any more."""
    priority = Run.objects.filter(pk=run_id).values_list("priority", flat=True).first() or 0
    changes = Run.objects.filter(pk=run_id, status=RunStatus.DELAYED).touch(
        delayed_until=FromNow(delay),
        run_at=FromNow(delay),
        rank=FromNow(delay - timedelta(seconds=priority)),
        expires_at=Case(When(expires_at=None, then=Value(None)), default=FromNow(delay + _ttl_of(run_id))),
    )
    bell.announce(changes)
    return bool(changes)


def _ttl_of(run_id: str) -> timedelta:
    """How long after its start time the run expires."""
    found = Run.objects.filter(pk=run_id).values_list("delayed_until", "expires_at").first()
    delayed_until, expires_at = found or (None, None)
    return expires_at - delayed_until if expires_at and delayed_until else timedelta(0)


# -- upkeep's moves ---------------------------------------------------------------------------------------------------


@atomic()
def start_due(run_ids: Sequence[str]) -> list[str]:
    """Queue delayed runs whose time has come."""
    changes = _unlocked(Run.objects.due().filter(pk__in=run_ids)).move(RunStatus.QUEUED, queued_at=FromNow())
    ledger.entered(changes, RunStatus.QUEUED)
    return [change.run_id for change in changes]


@atomic()
def expire(run_ids: Sequence[str]) -> list[str]:
    """End runs that were not started within their ttl."""
    changes = _unlocked(Run.objects.expired().filter(pk__in=run_ids)).move(
        RunStatus.EXPIRED, expired_at=FromNow(), **_final_values(RunStatus.EXPIRED)
    )
    _finish_attempt(changes, RunStatus.EXPIRED)
    return [change.run_id for change in changes]


@atomic()
def reclaim(run_id: str) -> RunStatus | None:
    """Take a run from a worker that is not heard of: back to the queue, or CRASHED after the last attempt.

    None when it was too late: somebody else has moved it.
    """
    stalled = _unlocked(Run.objects.stalled().filter(pk=run_id))
    error = RunError(
        "WorkerLost", "The worker that ran this attempt stopped without a word (killed, crashed or cut off)."
    )
    changes = stalled.filter(attempt__lt=F("max_attempts")).move(
        RunStatus.QUEUED, run_at=FromNow(), rank=FromNow(), queued_at=FromNow(), **_UNLEASED
    )
    if changes:
        _finish_attempt(changes, RunStatus.QUEUED, error)
        return RunStatus.QUEUED
    changes = stalled.move(RunStatus.CRASHED, error=error.to_json(), **_final_values(RunStatus.CRASHED))
    _finish_attempt(changes, RunStatus.CRASHED, error)
    return RunStatus.CRASHED if changes else None


@atomic()
def give_up(run_ids: Sequence[str], known_tasks: Collection[str]) -> list[str]:
    """End queued runs of tasks that nobody knows."""
    error = RunError("UnknownTask", "No worker knows this task: it is not defined in any installed app's tasks.py.")
    unknown = Run.objects.filter(pk__in=run_ids, status=RunStatus.QUEUED).exclude(task__in=known_tasks)
    changes = _unlocked(unknown).move(
        RunStatus.SYSTEM_FAILURE, error=error.to_json(), **_final_values(RunStatus.SYSTEM_FAILURE)
    )
    _finish_attempt(changes, RunStatus.SYSTEM_FAILURE)
    return [change.run_id for change in changes]


# -- what the moves share ---------------------------------------------------------------------------------------------


def _leased(lease: Lease) -> RunQuerySet:
    return Run.objects.leased(lease.run_id, lease.attempt, lease.token)


def _unlocked(runs: RunQuerySet) -> RunQuerySet:
    """Those of the runs whose rows nobody else has locked, and now we have: what somebody keeps for long waits for its
    turn, and the rest does not wait for it.
    """
    return runs.filter(pk__in=list(runs.select_for_update(skip_locked=True).values_list("pk", flat=True)))


def _held(changes: list[Change], lease: Lease) -> list[Change]:
    if not changes:
        raise LeaseLost(lease.run_id, lease.attempt)
    return changes


def _final_values(status: RunStatus) -> dict[str, Any]:
    """What every end sets. Hooks are run by a worker later, so that a crash between end and hook loses none."""
    hooked = registry.with_hook_after(status)
    hook_at = Case(When(task__in=hooked, then=FromNow()), default=Value(None)) if hooked else None
    return {"finished_at": FromNow(), "hook_at": hook_at, **_UNLEASED}


def _finish_attempt(changes: list[Change], status: RunStatus, error: RunError | None = None) -> None:
    if not changes:
        return
    ledger.attempt_ended(changes, error.to_json() if error else "")
    ledger.entered(changes, status)
    ids = [change.run_id for change in changes]
    if status in FREES_IDEMPOTENCY_KEY:
        IdempotencyClaim.objects.filter(run__in=ids).delete()
    if status in FINAL and registry.with_hook_after(status):
        ledger.needs_worker(ids)
