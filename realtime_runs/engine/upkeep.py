"""What must happen without anybody asking: delayed runs start, late ones expire, stalled ones are taken back, forgotten
ones are found.

Every worker does it, a little apart from each other. Each step first looks, without a transaction, and then makes
guarded moves, so several at once do no harm and an idle database is only read.
"""

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Final

from realtime_runs.conf import app_settings
from realtime_runs.engine import lifecycle, wait_tokens
from realtime_runs.engine.backends.base import get_backend
from realtime_runs.models import Run, WaitToken

logger = logging.getLogger("realtime_runs.engine")

_PAGE: Final = 200
# A backend was told of a run when it was committed. One that is still queued after so long is mentioned again.
_FORGOTTEN_AFTER_SECONDS: Final = 5.0


def upkeep(known_tasks: Collection[str]) -> None:
    """One round of everything."""
    for ids in _pages(lambda: Run.objects.due().order_by("delayed_until")):
        lifecycle.start_due(ids)
    for ids in _pages(lambda: Run.objects.expired().order_by("expires_at")):
        for run_id in lifecycle.expire(ids):
            logger.info("Run %s expired before it was started.", run_id)
    for ids in _pages(lambda: Run.objects.stalled().order_by("lease_until")):
        for run_id in ids:
            if status := lifecycle.reclaim(run_id):
                logger.warning("The worker of run %s is not heard of; the run is now %s.", run_id, status)
    for ids in _pages(lambda: WaitToken.objects.overdue().order_by("timeout_at")):
        wait_tokens.time_out(ids)
    unknown_after = app_settings.UNKNOWN_TASK_GRACE_SECONDS
    for ids in _pages(
        lambda: Run.objects.queued_longer_than(unknown_after).exclude(task__in=known_tasks).order_by("rank")
    ):
        for run_id in lifecycle.give_up(ids, known_tasks):
            logger.error("No worker knows the task of run %s.", run_id)
    forgotten = Run.objects.queued_longer_than(_FORGOTTEN_AFTER_SECONDS).order_by("rank").values_list("pk", flat=True)
    if ids := list(forgotten[:_PAGE]):
        get_backend().dispatch(ids)


def _pages(query: Callable[[], Any]) -> Iterator[Sequence[str]]:
    """Ids, page by page, until the moves have emptied the query (or did not change it)."""
    before: list[str] = []
    while ids := list(query().values_list("pk", flat=True)[:_PAGE]):
        if ids == before:
            return
        yield ids
        before = ids
        if len(ids) < _PAGE:
            return
