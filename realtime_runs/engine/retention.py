"""Removing old runs, in small transactions, while everybody goes on working."""

from collections.abc import Iterator
from datetime import timedelta

from django.db import transaction

from realtime_runs.models import Attempt, Batch, FromNow, IdempotencyClaim, Run, RunEvent, RunTag, Tag


def prune(older_than: timedelta, batch_size: int = 500, *, dry_run: bool = False) -> Iterator[int]:
    """Remove final runs that ended before that, and what belongs to them. Yields how many were removed in each
    transaction.

    With `dry_run` nothing is removed and one number is yielded: how many would be. Runs that are not final are never
    touched.
    """
    old = Run.objects.filter(finished_at__lt=FromNow(-older_than))
    if dry_run:
        yield old.count()
        return
    while True:
        with transaction.atomic():
            # Rows that a worker or another prune has locked are left for the next round.
            ids = list(
                old.select_for_update(skip_locked=True)
                .order_by("finished_at")
                .values_list("pk", flat=True)[:batch_size]
            )
            if not ids:
                break
            for model in (Attempt, RunEvent, IdempotencyClaim, RunTag):
                model.objects.filter(run__in=ids).delete()
            Run.objects.filter(pk__in=ids).delete()
        yield len(ids)
    # A batch or tag that was just made may wait for its runs in a transaction we cannot see.
    Batch.objects.filter(created_at__lt=FromNow(-older_than), runs=None).delete()
    Tag.objects.filter(created_at__lt=FromNow(-older_than), runs=None).delete()
