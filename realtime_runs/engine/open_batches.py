"""Batches that are made in two steps (wire-protocol 4.2, 4.3): opened, then filled with items by one or more uploads.

The items wait as rows. The upload that brings the last missing one makes the runs, all in its transaction. Whatever is
read here is read a page at a time: a batch may hold a thousand payloads of three megabytes.
"""

import json
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, cast

from realtime_runs import packets
from realtime_runs.conf import app_settings
from realtime_runs.durations import parse_duration
from realtime_runs.engine import registry, stored_packets
from realtime_runs.engine.idempotency import claim_keys
from realtime_runs.engine.options import CheckedOptions, TriggerOptions, check_key, hash_key
from realtime_runs.engine.triggering import Parent, Request, check_batch_size, fill_batch, find_parent, make_tags
from realtime_runs.exceptions import BatchItemInvalid, BatchMissing, InvalidInput, UnknownTask
from realtime_runs.models import Batch, BatchItem, FromNow, database_now
from realtime_runs.packets import Packet
from realtime_runs.turns import atomic

_PAGE: Final = 25
_TRIGGERED_BY: Final = "batchTrigger"


@dataclass(frozen=True, slots=True)
class Item:
    """A wish for one run of a batch. `index`: its place, from 0."""

    index: int
    task_id: str
    payload: Packet
    options: TriggerOptions


@dataclass(frozen=True, slots=True)
class Upload:
    """What an upload of items did. `present` of the batch's `expected` items are there; all of them: it is sealed."""

    accepted: int
    repeated: int
    present: int
    expected: int
    is_sealed: bool


def open_batch(
    run_count: int, *, task_ids: Iterable[str] = (), parent_id: str = "", key: str = "", key_as_written: str = ""
) -> tuple[Batch, bool]:
    """A batch that waits for so many items, of these tasks where some are named; and whether an earlier one with the
    same key and tasks is meant, whose runs are made. (One that is still open is given to be filled once more.)

    Raises TooLarge, InvalidOption, NotJson, ParentNotFound or RunStopped.
    """
    check_batch_size(run_count)
    find_parent(parent_id)
    tasks = sorted(set(task_ids))
    mine = Batch(
        run_count=run_count,
        created_at=database_now(),
        is_open=True,
        parent_id=parent_id,
        task_ids=tasks,
        idempotency_key=check_key(key_as_written or key) if key else "",
        # Keys belong to tasks: who may trigger some of them must not be given the runs of others.
        key_hash=hash_key(json.dumps([check_key(key), *tasks])) if key else "",
    )
    if not key:
        mine.save(force_insert=True)
        return mine, False
    with atomic():
        same = Batch.objects.filter(key_hash=mine.key_hash)
        ttl = parse_duration(app_settings.IDEMPOTENCY_KEY_TTL)
        same.filter(created_at__lte=FromNow(-ttl)).update(key_hash="")
        Batch.objects.bulk_create([mine], ignore_conflicts=True)  # waits for one who does the same
        held = same.get()
    return held, not held.is_open


def check_item(item: Item) -> Request:
    """Raises BatchItemInvalid."""
    try:
        return Request.check(item.task_id, stored_packets.inlined(item.payload), item.options, _TRIGGERED_BY)
    except UnknownTask:
        raise BatchItemInvalid(item.index, str(UnknownTask(item.task_id))) from None
    except InvalidInput as error:
        raise BatchItemInvalid(item.index, str(error)) from error


def add_items(batch_id: str, items: Iterable[Item]) -> Upload:
    """Add those items that are not there yet, and make the runs when none is missing. Raises BatchMissing or
    BatchItemInvalid; then nothing of this upload is stored. The items are taken from the iterable inside of the
    transaction; what it raises undoes it too.
    """
    with atomic():
        # Uploads of one batch come one after the other, so that each sees what is there.
        batch = Batch.objects.select_for_update().filter(pk=batch_id).first()
        if batch is None:
            deque(items, maxlen=0)  # whoever may not add them must not learn that there is no such batch
            raise BatchMissing(batch_id)
        if not batch.is_open:
            count = batch.run_count
            return Upload(0, sum(1 for _ in items), present=count, expected=count, is_sealed=True)
        present = set(batch.items.values_list("index", flat=True))
        before, repeated, page = len(present), 0, []
        for item in items:
            if item.index in present:
                repeated += 1
                continue
            page.append(_row(batch, item))
            present.add(item.index)
            if len(page) == _PAGE:
                BatchItem.objects.bulk_create(page)
                page = []
        BatchItem.objects.bulk_create(page)
        expected = batch.run_count
        if len(present) == expected:
            _seal(batch)
        return Upload(len(present) - before, repeated, len(present), expected, is_sealed=not batch.is_open)


def _row(batch: Batch, item: Item) -> BatchItem:
    if item.index >= batch.run_count:
        raise BatchItemInvalid(item.index, f"the batch was made for {batch.run_count} items, counted from 0.")
    if batch.task_ids and item.task_id not in batch.task_ids:
        raise BatchItemInvalid(item.index, f"task {item.task_id!r} is not among those that the batch was made for.")
    request = check_item(item)
    return BatchItem(
        batch=batch,
        index=item.index,
        task=item.task_id,
        payload=request.payload.text,
        payload_type=request.payload.type,
        options=packets.encode(dict(item.options), "options"),
    )


def _seal(batch: Batch) -> None:
    """Make the runs, in the order of the items."""
    parent = find_parent(batch.parent_id)
    wishes, tags = [], set[str]()
    for item in batch.items.order_by("index").defer("payload").iterator(chunk_size=_PAGE):
        options = _options(item)
        wishes.append((item.task, options.idempotency_key, options.idempotency_key_ttl))
        tags.update(options.tags)
    # All keys and tags before any run: taken page by page they would be in no order, and two batches might deadlock.
    ids = claim_keys(wishes)
    make_tags(tags)
    run_count = 0
    for start in range(0, batch.run_count, _PAGE):
        page = batch.items.filter(index__gte=start, index__lt=start + _PAGE).order_by("index")
        run_count += _make_runs(batch, page, ids, parent)
    batch.items.all().delete()
    batch.run_count = run_count
    batch.is_open = False
    batch.save(update_fields=["run_count", "is_open"])


def _make_runs(batch: Batch, items: Iterable[BatchItem], ids: Sequence[tuple[str, bool]], parent: Parent | None) -> int:
    new = []
    for item in items:
        run_id, is_held = ids[item.index]
        if not is_held:
            payload = Packet(item.payload, item.payload_type)
            new.append((item.index, run_id, Request(registry.get(item.task), payload, _options(item), _TRIGGERED_BY)))
    fill_batch(batch.pk, new, parent)
    return len(new)


def _options(item: BatchItem) -> CheckedOptions:
    try:
        task = registry.get(item.task)
    except UnknownTask:  # it was there when the item was uploaded
        raise BatchItemInvalid(item.index, str(UnknownTask(item.task))) from None
    return CheckedOptions.check(task, cast(TriggerOptions, json.loads(item.options)))
