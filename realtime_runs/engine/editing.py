"""Changing the metadata and the tags of a run, under its row lock, so that concurrent writers lose nothing."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from realtime_runs.engine.context import Lease
from realtime_runs.engine.operations import Operation, apply
from realtime_runs.engine.options import check_metadata_size, check_tags
from realtime_runs.engine.triggering import tag_runs
from realtime_runs.exceptions import InvalidInput, InvalidOption, InvalidTransition, LeaseLost, RunNotFound
from realtime_runs.live import bell
from realtime_runs.models import FromNow, Run
from realtime_runs.models.run import RunQuerySet
from realtime_runs.packets import encode_result
from realtime_runs.turns import atomic


@atomic()
def edit_metadata(
    lease: Lease, operations: Mapping[str, Sequence[Operation]]
) -> tuple[dict[str, Any], InvalidInput | None]:
    """Apply the operations of a running attempt to runs by id: its own first, then those above it.

    Returns the run's own metadata as it is now, and the error of operations that were refused because a limit was
    passed (the others are stored). Raises LeaseLost; then nothing was stored.
    """
    own = Run.objects.leased(lease.run_id, lease.attempt, lease.token)
    text = own.select_for_update().values_list("metadata", flat=True).first()
    if text is None:
        raise LeaseLost(lease.run_id, lease.attempt)
    metadata, refused = _edit(lease.run_id, text, operations.get(lease.run_id, ()))
    for run_id, its_operations in operations.items():
        if run_id != lease.run_id:
            above = Run.objects.filter(pk=run_id).select_for_update().values_list("metadata", flat=True).first()
            if above is not None:  # else it was pruned meanwhile
                refused = _edit(run_id, above, its_operations)[1] or refused
    return metadata, refused


def _edit(run_id: str, text: str, operations: Sequence[Operation]) -> tuple[dict[str, Any], InvalidInput | None]:
    """Under the row lock. When all operations together are refused, those that fit are stored."""
    old: dict[str, Any] = json.loads(text)
    metadata, refused = old, None
    try:
        metadata = apply(operations, old)
        check_metadata_size(encode_result(metadata, "metadata"))
    except InvalidInput:
        metadata = old
        for operation in operations:
            try:
                candidate = apply([operation], metadata)
                check_metadata_size(encode_result(candidate, "metadata"))
                metadata = candidate
            except InvalidInput as error:
                refused = error
    new_text = encode_result(metadata, "metadata")
    if new_text != text:
        bell.announce(Run.objects.filter(pk=run_id).touch(metadata=new_text))
    return metadata, refused


def add_tags(run_id: str, tags: str | Iterable[str]) -> tuple[str, ...]:
    """Add tags to a run, in any status, and return all it has. Raises RunNotFound, or TooLarge: then none was added."""
    with atomic():
        return _add_tags(Run.objects.with_id(run_id), tags, RunNotFound(run_id))


def add_own_tags(lease: Lease, tags: str | Iterable[str]) -> tuple[str, ...]:
    """The same for a running attempt, in the transaction of its writer. Raises LeaseLost."""
    own = Run.objects.leased(lease.run_id, lease.attempt, lease.token)
    return _add_tags(own, tags, LeaseLost(lease.run_id, lease.attempt))


def _add_tags(run: RunQuerySet, tags: str | Iterable[str], missing: Exception) -> tuple[str, ...]:
    found = run.select_for_update().values_list("pk", "tag_names").first()
    if found is None:
        raise missing
    run_id, old = found
    names = check_tags(tags, old)
    if list(names) != old:
        tag_runs({run_id: names})
        bell.announce(Run.objects.filter(pk=run_id).touch(tag_names=list(names)))
    return names


# -- from outside of a task -------------------------------------------------------------------------------------------

_MOST_WIDE: Final = 100  # each may walk through all of the metadata, and the run's row is locked meanwhile
_EDITABLE: Final = timedelta(hours=1)  # after its end (wire-protocol 6.1)


@dataclass(frozen=True, slots=True)
class Edits:
    """Operations for a run, and for those above it; a run without a parent takes them itself."""

    own: Sequence[Operation] = ()
    parent: Sequence[Operation] = ()
    root: Sequence[Operation] = ()


@atomic()
def edit_metadata_of(run_id: str, edits: Edits) -> dict[str, Any]:
    """Apply all of them, or none, and return the run's own metadata as it is then.

    Raises RunNotFound, InvalidTransition for a run that ended more than an hour ago, TooLarge, InvalidOption.
    """
    above = Run.objects.with_id(run_id).values_list("parent", "root").first()
    if above is None:
        raise RunNotFound(run_id)
    columns = ("pk", "metadata", "status", "finished_at", FromNow(-_EDITABLE))
    wanted = {run_id, *filter(None, above)}
    # Locked in one order everywhere, as by those who append to streams.
    rows = Run.objects.filter(pk__in=wanted).order_by("pk").select_for_update().values_list(*columns)
    found = {pk: (text, status, finished_at, limit) for pk, text, status, finished_at, limit in rows}
    if run_id not in found:  # removed meanwhile
        raise RunNotFound(run_id)
    todo: dict[str, list[Operation]] = {}
    for target, operations in ((above[0], edits.parent), (above[1], edits.root), (run_id, edits.own)):
        todo.setdefault(target or run_id, []).extend(operations)
    # One that is not found was removed meanwhile.
    after = {pk: _edited(pk, *found[pk], operations) for pk, operations in todo.items() if operations and pk in found}
    own = after.get(run_id)
    return dict(json.loads(found[run_id][0])) if own is None else own


def _edited(
    run_id: str, text: str, status: str, finished_at: Any, limit: Any, operations: Sequence[Operation]
) -> dict[str, Any]:
    """Under the row lock; all of them, or an error."""
    if finished_at is not None and finished_at < limit:
        raise InvalidTransition(run_id, status, "edited: it ended more than an hour ago")
    if sum(operation.is_wide for operation in operations) > _MOST_WIDE:
        raise InvalidOption(f"At most {_MOST_WIDE} operations of a request may have a key with `*`.")
    metadata = apply(operations, json.loads(text))
    new_text = encode_result(metadata, "metadata")
    check_metadata_size(new_text)
    if new_text != text:
        bell.announce(Run.objects.filter(pk=run_id).touch(metadata=new_text))
    return metadata
