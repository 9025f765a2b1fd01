"""Creating runs: in one transaction, the caller's if there is one. The inserted row is the queue entry."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Final, Generic

from django.db import transaction

from realtime_runs.conf import app_settings
from realtime_runs.engine import registry
from realtime_runs.engine.backends.base import get_backend
from realtime_runs.engine.context import find_active
from realtime_runs.engine.definition import TaskDefinition
from realtime_runs.engine.idempotency import claim_key, claim_keys, holder_of
from realtime_runs.engine.options import CheckedOptions, TriggerOptions
from realtime_runs.exceptions import BatchNotFound, InvalidInput, ParentNotFound, RunStopped, TooLarge
from realtime_runs.ids import is_possible, new_batch_id, new_run_id
from realtime_runs.live import bell
from realtime_runs.live.snapshot import O, P, RealtimeRun
from realtime_runs.models import Batch, Change, Run, RunEvent, RunTag, Tag, database_now
from realtime_runs.models.bulk import insert_many
from realtime_runs.packets import NOTHING, Packet, check_payload, pack_payload
from realtime_runs.statuses import RunStatus
from realtime_runs.turns import atomic

_EVENT_FIELDS: Final = ("run_id", "status", "attempt", "at")

Parent = Run | RealtimeRun[Any, Any]


@dataclass(frozen=True, slots=True)
class RunHandle(Generic[P, O]):
    """What `trigger` returns. `is_cached`: an earlier run with the same idempotency key is meant, none was made."""

    id: str
    is_cached: bool = False


@dataclass(frozen=True, slots=True)
class BatchHandle:
    """What a batch trigger returns. `run_ids` are in item order."""

    id: str
    run_ids: tuple[str, ...]

    @property
    def run_count(self) -> int:
        return len(self.run_ids)


@dataclass(frozen=True, slots=True)
class Request:
    """A checked wish for one run."""

    task: TaskDefinition[Any, Any]
    payload: Packet
    options: CheckedOptions
    trigger_function: str = "trigger"

    @classmethod
    def check(cls, task_id: str, payload: Any, options: TriggerOptions, trigger_function: str = "trigger") -> "Request":
        """From a Python value, or from a Packet, which is kept verbatim. Raises what is wrong; stores nothing."""
        task = registry.get(task_id)
        if isinstance(payload, Packet):
            check_payload(payload)
            packet = payload
        else:
            packet = NOTHING if payload is None else pack_payload(payload)
        task.payload(packet)
        return cls(task, packet, CheckedOptions.check(task, options), trigger_function)

    @property
    def key_wish(self) -> tuple[str, str, timedelta]:
        """What `claim_keys` takes."""
        return self.task.id, self.options.idempotency_key, self.options.idempotency_key_ttl


def trigger(request: Request, *, parent_id: str = "") -> RunHandle:
    """Create the run, or find the one that holds the idempotency key. Starts on commit; a rollback leaves nothing.

    It becomes a child of the run that is named, or else of the one that is executed here. Raises ParentNotFound, and
    RunStopped where that was told to stop: a canceled run has no new children.
    """
    parent = find_parent(parent_id)
    key = request.options.idempotency_key
    if key and (holder := holder_of(request.task.id, key)):
        return RunHandle(holder, is_cached=True)
    with atomic():
        run_id = new_run_id()
        if key:
            holder = claim_key(request.task.id, key, run_id, request.options.idempotency_key_ttl)
            if holder != run_id:
                return RunHandle(holder, is_cached=True)
        now = database_now()
        _insert([_row(request, run_id, now, parent)], [request], now)
    return RunHandle(run_id)


def trigger_batch(requests: Sequence[Request], *, parent_id: str = "") -> BatchHandle:
    """Create all runs of a batch, or none. An item whose idempotency key is held brings the run that holds it."""
    if not requests:
        raise InvalidInput("A batch needs at least one item.")
    parent = find_parent(parent_id)
    check_batch_size(len(requests))
    with atomic():
        ids = claim_keys([request.key_wish for request in requests])
        new = [(n, run_id, requests[n]) for n, (run_id, is_held) in enumerate(ids) if not is_held]
        batch = Batch.objects.create(id=new_batch_id(), run_count=len(new), created_at=database_now())
        fill_batch(batch.id, new, parent)
    return BatchHandle(batch.id, tuple(run_id for run_id, _ in ids))


def fill_batch(batch_id: str, new: Sequence[tuple[int, str, Request]], parent: Parent | None) -> None:
    """Insert runs of a batch: for each its place in the batch, its id, and what is wished."""
    now = database_now()
    rows = [_row(request, run_id, now, parent, batch_id=batch_id, batch_index=n) for n, run_id, request in new]
    _insert(rows, [request for _, _, request in new], now)


def find_parent(parent_id: str = "") -> Parent | None:
    """The run whose child is made: the one that is named, or else the one that is executed here.

    Raises ParentNotFound or RunStopped.
    """
    if parent_id:
        named = Run.objects.filter(pk=parent_id).only("root_id", "depth", "status").first()
        if named is None:
            raise ParentNotFound(parent_id)
        if named.status == RunStatus.CANCELED:
            raise RunStopped(parent_id)
        return named
    active = find_active()
    if active is None:
        return None
    if active.context.signal.is_set():
        raise RunStopped(active.run.id)
    if not transaction.get_connection().in_atomic_block:
        active.metadata.flush()  # what a task has set so far comes before what its children do to it
    return active.run


def check_batch_size(size: int) -> None:
    if size > app_settings.MAX_BATCH_ITEMS:
        raise TooLarge("batch", size, app_settings.MAX_BATCH_ITEMS, "MAX_BATCH_ITEMS", "items")


def get_batch(batch_id: str) -> Batch:
    """Raises BatchNotFound."""
    batch = Batch.objects.filter(pk=batch_id).first() if is_possible(batch_id) else None
    if batch is None:
        raise BatchNotFound(batch_id)
    return batch


Row = dict[str, Any]  # of a run, by column


def _row(request: Request, run_id: str, now: datetime, parent: Parent | None, **values: Any) -> Row:
    options = request.options
    start = now + options.delay
    is_delayed = bool(options.delay)
    return _defaults() | dict(
        id=run_id,
        task=request.task.id,
        status=RunStatus.DELAYED if is_delayed else RunStatus.QUEUED,
        payload=request.payload.text,
        payload_type=request.payload.type,
        metadata=options.metadata,
        tag_names=list(options.tags),
        parent_id=parent.id if parent else None,
        root_id=(parent.root_id or parent.id) if parent else None,
        depth=parent.depth + 1 if parent else 0,
        trigger_function=request.trigger_function,
        is_test=options.is_test,
        idempotency_key=options.shown_key,
        queue=options.queue,
        concurrency_key=options.concurrency_key,
        priority=options.priority,
        max_attempts=options.max_attempts,
        max_duration=options.max_duration,
        ttl=options.ttl,
        created_at=now,
        updated_at=now,
        # SQLite's clock has milliseconds: a worker that looks within the same one shall find the run.
        run_at=start if is_delayed else now.replace(microsecond=now.microsecond // 1000 * 1000),
        rank=start - timedelta(seconds=options.priority),
        delayed_until=start if is_delayed else None,
        queued_at=None if is_delayed else now,
        expires_at=None if options.expires_after is None else start + options.expires_after,
        **values,
    )


@cache
def _defaults() -> Row:
    """Of all columns, in the order in which they are inserted."""
    return {field.attname: field.get_default() for field in Run._meta.concrete_fields}


def _insert(rows: list[Row], requests: Sequence[Request], now: datetime) -> None:
    insert_many(Run, tuple(_defaults()), [tuple(row.values()) for row in rows])
    insert_many(RunEvent, _EVENT_FIELDS, [(row["id"], row["status"], 0, now) for row in rows])
    tags = {row["id"]: request.options.tags for row, request in zip(rows, requests, strict=True)}
    tag_runs({run_id: its_tags for run_id, its_tags in tags.items() if its_tags}, now)
    bell.announce([Change(row["id"], 1, 0, tuple(row["tag_names"]), row["batch_id"]) for row in rows])
    queued = [row["id"] for row in rows if row["status"] == RunStatus.QUEUED]
    if queued:
        backend = get_backend()
        # robust: the rows are committed; a backend that cannot be reached must not make the trigger look failed.
        transaction.on_commit(lambda: backend.dispatch(queued), robust=True)


def tag_runs(tags: dict[str, tuple[str, ...]], now: datetime | None = None) -> None:
    """Store which run carries which tag. Only for runs whose row says so in the same transaction."""
    if tags:
        make_tags((name for its_tags in tags.values() for name in its_tags), now)
        carried = [(run_id, name) for run_id, its_tags in tags.items() for name in its_tags]
        insert_many(RunTag, ("run_id", "tag_id"), carried, ignore_conflicts=True)


def make_tags(names: Iterable[str], now: datetime | None = None) -> None:
    """Those that are new. Sorted, so that two transactions with the same new ones wait for each other instead of
    deadlocking.
    """
    now = now or database_now()
    insert_many(Tag, ("name", "created_at"), [(name, now) for name in sorted(set(names))], ignore_conflicts=True)
