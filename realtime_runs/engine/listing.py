"""Pages of runs."""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from asgiref.sync import sync_to_async
from django.utils import timezone

from realtime_runs.exceptions import InvalidOption
from realtime_runs.live.snapshot import RealtimeRun, snapshot
from realtime_runs.models import FromNow, Run
from realtime_runs.models.run import RunQuerySet
from realtime_runs.statuses import RunStatus

Convert = Callable[[RealtimeRun], RealtimeRun]


@dataclass(frozen=True)
class RunPage:
    """Runs, newest first. `next`: cursor for `after`, when older runs follow; `previous`: for `before`, when newer
    ones do.
    """

    data: list[RealtimeRun]
    next: str | None
    previous: str | None
    _turn: Callable[[str], "RunPage"] = field(repr=False)

    def next_page(self) -> "RunPage | None":
        return self._turn(self.next) if self.next else None

    async def anext_page(self) -> "RunPage | None":
        return await sync_to_async(self.next_page)()

    def __iter__(self) -> Iterator[RealtimeRun]:
        page: RunPage | None = self
        while page is not None:
            yield from page.data
            page = page.next_page()

    async def __aiter__(self) -> AsyncIterator[RealtimeRun]:
        page: RunPage | None = self
        while page is not None:
            for run in page.data:
                yield run
            page = await page.anext_page()


def list_runs(*, page_size: int, after: str | None, before: str | None, convert: Convert, **filters: Any) -> RunPage:
    """One page. `before` wins over `after` (wire-protocol 5.2). The cursor is the id of a run, exclusive.

    Ids begin with their time.
    """
    if isinstance(page_size, bool) or not isinstance(page_size, int) or not 1 <= page_size <= 100:
        raise InvalidOption(f"page_size must be a whole number from 1 to 100, not {page_size!r}.")
    runs = _filtered(**filters)
    cursor = before or after
    if cursor is not None and not Run.objects.filter(pk=cursor).exists():
        raise InvalidOption(f"The cursor {cursor!r} is not the id of a run.")
    # One more than asked for tells whether there are more in that direction.
    if before:
        found = list(runs.filter(pk__gt=before).order_by("pk")[: page_size + 1])
        page, has_newer = list(reversed(found[:page_size])), len(found) > page_size
        has_older = True
    else:
        found = list((runs.filter(pk__lt=after) if after else runs).order_by("-pk")[: page_size + 1])
        page, has_older = found[:page_size], len(found) > page_size
        has_newer = bool(after)
    if before and page:
        has_older = runs.filter(pk__lt=page[-1].pk).exists()
    elif after and page:
        has_newer = runs.filter(pk__gt=page[0].pk).exists()
    return RunPage(
        data=[convert(snapshot(run)) for run in page],
        next=page[-1].pk if page and has_older else None,
        previous=page[0].pk if page and has_newer else None,
        _turn=lambda cursor: list_runs(page_size=page_size, after=cursor, before=None, convert=convert, **filters),
    )


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
        statuses = _several(status)
        if unknown := set(statuses) - set(RunStatus.values):
            raise InvalidOption(f"Unknown status {sorted(unknown)[0]!r}; there are {', '.join(RunStatus.values)}.")
        runs = runs.filter(status__in=statuses)
    if task is not None:
        runs = runs.filter(task__in=_several(task))
    if tag is not None:
        runs = runs.tagged_any(_several(tag))
    if batch is not None:
        runs = runs.filter(batch=batch)
    if queue is not None:
        runs = runs.filter(queue__in=_several(queue))
    if is_test is not None:
        runs = runs.filter(is_test=is_test)
    if created_after is not None:
        runs = runs.filter(created_at__gte=_aware(created_after, "created_after"))
    if created_before is not None:
        runs = runs.filter(created_at__lte=_aware(created_before, "created_before"))
    if period is not None:
        runs = runs.filter(created_at__gte=FromNow(-period))
    return runs


def _several(value: str | Iterable[str]) -> list[str]:
    values = [value] if isinstance(value, str) else list(value)
    if not all(isinstance(item, str) and "\0" not in item for item in values):
        raise InvalidOption(f"A filter takes texts, not {value!r}.")
    return values


def _aware(value: datetime, what: str) -> datetime:
    if timezone.is_naive(value):
        raise InvalidOption(f"{what} {value!r} has no time zone.")
    return value
