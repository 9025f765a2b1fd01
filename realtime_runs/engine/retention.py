"""Removing old runs, in small transactions, while everybody goes on working."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Final

from django.db.models import F

from realtime_runs.engine import stored_packets
from realtime_runs.models import (
    AnsweredRequest,
    Attempt,
    Batch,
    FromNow,
    IdempotencyClaim,
    Run,
    RunEvent,
    RunTag,
    SpentToken,
    Stream,
    StreamChunk,
    Tag,
    WaitToken,
)
from realtime_runs.turns import atomic

_CHUNKS_AT_ONCE: Final = 5000
_ANSWERS_KEPT_FOR: Final = timedelta(minutes=10)  # a client repeats a request for some seconds
_OPEN_BATCHES_KEPT_FOR: Final = timedelta(days=1)


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
        _trim_streams(list(old.order_by("finished_at").values_list("pk", flat=True)[:batch_size]))
        with atomic():
            # Rows that a worker or another prune has locked are left for the next round.
            ids = list(
                old.select_for_update(skip_locked=True)
                .order_by("finished_at")
                .values_list("pk", flat=True)[:batch_size]
            )
            if not ids:
                break
            for model in (Attempt, RunEvent, IdempotencyClaim, RunTag, Stream):
                model.objects.filter(run__in=ids).delete()
            Run.objects.filter(pk__in=ids).delete()
        yield len(ids)
    # A batch or tag that was just made may wait for its runs in a transaction we cannot see.
    Batch.objects.filter(created_at__lt=FromNow(-older_than), is_open=False, runs=None).delete()
    Tag.objects.filter(created_at__lt=FromNow(-older_than), runs=None).delete()
    WaitToken.objects.settled_before(older_than).delete()
    _forget_requests()


def _forget_requests() -> None:
    """Remove what the HTTP API need not remember any more, whatever the age of runs."""
    SpentToken.objects.filter(expires_at__lt=FromNow()).delete()
    AnsweredRequest.objects.filter(created_at__lt=FromNow(-_ANSWERS_KEPT_FOR)).delete()
    with atomic():
        # Locked, so that none is being completed; one that is, is left alone.
        abandoned = Batch.objects.filter(is_open=True, created_at__lt=FromNow(-_OPEN_BATCHES_KEPT_FOR))
        ids = list(abandoned.select_for_update(skip_locked=True).values_list("pk", flat=True))
        Batch.objects.filter(pk__in=ids).delete()
    stored_packets.prune()


def _trim_streams(run_ids: Sequence[str]) -> None:
    """Remove the chunks of these runs, a bounded number in each transaction, from the oldest on. Who reads them
    meanwhile is told from where on there still are some.
    """
    streams = Stream.objects.filter(run__in=run_ids, first_index__lt=F("next_index"))
    for pk, first_index, next_index in streams.values_list("pk", "first_index", "next_index"):
        for kept in [*range(first_index + _CHUNKS_AT_ONCE, next_index, _CHUNKS_AT_ONCE), next_index]:
            with atomic():
                Stream.objects.filter(pk=pk).update(first_index=kept)
                StreamChunk.objects.filter(stream=pk, index__lt=kept).delete()
