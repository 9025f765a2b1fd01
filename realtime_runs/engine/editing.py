"""Changing the metadata and the tags of a run, under its row lock, so that concurrent writers lose nothing."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from realtime_runs.engine.context import Lease
from realtime_runs.engine.operations import Operation, apply
from realtime_runs.engine.options import check_metadata_size, check_tags
from realtime_runs.engine.triggering import tag_runs
from realtime_runs.exceptions import InvalidInput, LeaseLost, RunNotFound
from realtime_runs.live import bell
from realtime_runs.models import Run
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
        return _add_tags(Run.objects.filter(pk=run_id), tags, RunNotFound(run_id))


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
