"""Pages of runs."""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, Final

from django.db.models import Q

from realtime_runs.engine.paging import Page, check_statuses, created, read_page, several
from realtime_runs.exceptions import InvalidOption
from realtime_runs.live.snapshot import RealtimeRun, snapshot
from realtime_runs.models import Run
from realtime_runs.models.run import RunQuerySet
from realtime_runs.statuses import RunStatus

# On the wire the queue that a task has without a wish of its own (wire-protocol 5.2).
_TASK_QUEUE: Final = "task/"
_NO_QUEUE: Final = "default"

Convert = Callable[[RealtimeRun], RealtimeRun]


class RunPage(Page[RealtimeRun]):
    """Runs, newest first. `next`: cursor for `after`, when older runs follow; `previous`: for `before`, when newer
    ones do.
    """


def list_runs(
    *,
    page_size: int,
    after: str | None,
    before: str | None,
    convert: Convert,
    within: Callable[[Any], Any] | None = None,
    with_packets: bool = True,
    **filters: Any,
) -> RunPage:
    """One page: see `paging.read_page`. `within`: narrows the query set to what the caller may see. Without packets
    the runs have neither payload nor output, which may be megabytes each.
    """
    found = _filtered(**filters) if with_packets else _filtered(**filters).without_packets()
    rows = found if within is None else within(found)
    if with_packets:
        return read_page(RunPage, rows, lambda run: convert(snapshot(run)), page_size, after, before)
    return read_page(RunPage, rows, lambda run: convert(snapshot(without_packets(run))), page_size, after, before)


def without_packets(row: Run) -> Run:
    """A row whose payload and output were not read, and are not asked for."""
    row.payload = row.output = None
    return row


def _filtered(
    *,
    status: str | Iterable[str] | None,
    task: str | Iterable[str] | None,
    tag: str | Iterable[str] | None,
    batch: str | None,
    queue: str | Iterable[str] | None,
    is_test: bool | None,
    created_after: datetime | None,
    created_before: datetime | None,
    period: timedelta | None,
) -> RunQuerySet:
    runs = Run.objects.all()
    if status is not None:
        statuses = _texts(status)
        check_statuses(statuses, RunStatus.values)
        runs = runs.filter(status__in=statuses)
    if task is not None:
        runs = runs.filter(task__in=_texts(task))
    if tag is not None:
        runs = runs.tagged_any(_texts(tag))
    if batch is not None:
        runs = runs.filter(batch__in=_texts(batch))
    if queue is not None:
        names = _texts(queue)
        tasks = [name.removeprefix(_TASK_QUEUE) for name in names if name.startswith(_TASK_QUEUE)]
        runs = runs.filter(Q(queue__in=names) | Q(task__in=tasks, queue=_NO_QUEUE))
    if is_test is not None:
        runs = runs.filter(is_test=is_test)
    return created(runs, created_after, created_before, period)


def _texts(value: str | Iterable[str]) -> list[str]:
    values = several(value)
    if any("\0" in text for text in values):
        raise InvalidOption(f"A filter takes texts, not {value!r}.")
    return values
