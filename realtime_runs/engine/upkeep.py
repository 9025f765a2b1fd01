"""What must happen without anybody asking: delayed runs start, late ones expire, stalled ones are taken back, forgotten
ones are found.

Every worker does it, a little apart from each other. Each step first looks, without a transaction, and then makes
guarded moves, so several at once do no harm and an idle database is only read.
"""

import logging
from collections.abc import Collection, Iterator
from functools import lru_cache
from typing import Any, Final, NamedTuple

from django.db import connection
from django.db.models import QuerySet

from realtime_runs.conf import app_settings
from realtime_runs.engine import lifecycle, wait_tokens
from realtime_runs.engine.backends.base import get_backend
from realtime_runs.models import Run, WaitToken
from realtime_runs.models.prepared import Prepared

logger = logging.getLogger("realtime_runs.engine")

_PAGE: Final = 200
# A backend was told of a run when it was committed. One that is still queued after so long is mentioned again.
_FORGOTTEN_AFTER_SECONDS: Final = 5.0


class _Looks(NamedTuple):
    """Which rows each step is about, as statements that give a page of ids."""

    due: Prepared
    expired: Prepared
    stalled: Prepared
    overdue_tokens: Prepared
    unknown: Prepared
    forgotten: Prepared


def upkeep(known_tasks: Collection[str]) -> None:
    """One round of everything."""
    looks = _looks(connection.vendor, tuple(known_tasks), app_settings.UNKNOWN_TASK_GRACE_SECONDS)
    for ids in _pages(looks.due):
        lifecycle.start_due(ids)
    for ids in _pages(looks.expired):
        for run_id in lifecycle.expire(ids):
            logger.info("Run %s expired before it was started.", run_id)
    for ids in _pages(looks.stalled):
        for run_id in ids:
            if status := lifecycle.reclaim(run_id):
                logger.warning("The worker of run %s is not heard of; the run is now %s.", run_id, status)
    for ids in _pages(looks.overdue_tokens):
        wait_tokens.time_out(ids)
    for ids in _pages(looks.unknown):
        for run_id in lifecycle.give_up(ids, known_tasks):
            logger.error("No worker knows the task of run %s.", run_id)
    if ids := _ids(looks.forgotten):
        get_backend().dispatch(ids)


@lru_cache(maxsize=16)
def _looks(vendor: str, known_tasks: tuple[str, ...], unknown_after: float) -> _Looks:
    """Built once: to build them for each round took most of what an idle worker needs."""
    unknown = Run.objects.queued_longer_than(unknown_after).exclude(task__in=known_tasks)
    return _Looks(
        due=_page(Run.objects.due().order_by("delayed_until")),
        expired=_page(Run.objects.expired().order_by("expires_at")),
        stalled=_page(Run.objects.stalled().order_by("lease_until")),
        overdue_tokens=_page(WaitToken.objects.overdue().order_by("timeout_at")),
        unknown=_page(unknown.order_by("rank")),
        forgotten=_page(Run.objects.queued_longer_than(_FORGOTTEN_AFTER_SECONDS).order_by("rank")),
    )


def _page(query: "QuerySet[Any]") -> Prepared:
    return Prepared.read(query.values_list("pk")[:_PAGE])


def _ids(look: Prepared) -> list[str]:
    return [pk for (pk,) in look.rows()]


def _pages(look: Prepared) -> Iterator[list[str]]:
    """Ids, page by page, until the moves have emptied what is looked at (or did not change it)."""
    before: list[str] = []
    while ids := _ids(look):
        if ids == before:
            return
        yield ids
        before = ids
        if len(ids) < _PAGE:
            return
