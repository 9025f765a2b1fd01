"""Pages of rows, newest first, and the filters that all such lists have.

The cursor is the id of a row, exclusive; ids begin with their time.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, Self, TypeVar

from asgiref.sync import sync_to_async
from django.db.models import Model, QuerySet
from django.utils import timezone

from realtime_runs.exceptions import InvalidOption
from realtime_runs.models import FromNow

T = TypeVar("T")
Row = TypeVar("Row", bound=Model)
AnyPage = TypeVar("AnyPage", bound="Page[Any]")
Rows = TypeVar("Rows", bound=QuerySet[Any])


@dataclass(frozen=True)
class Page(Generic[T]):
    """`next`: cursor for `after`, when older ones follow; `previous`: for `before`, when newer ones do."""

    data: list[T]
    next: str | None
    previous: str | None
    _turn: Callable[[str], Any] = field(repr=False)  # from a cursor, to a page of the same class

    def next_page(self) -> Self | None:
        page: Self | None = self._turn(self.next) if self.next else None
        return page

    async def anext_page(self) -> Self | None:
        return await sync_to_async(self.next_page)()

    def __iter__(self) -> Iterator[T]:
        page: Page[T] | None = self
        while page is not None:
            yield from page.data
            page = page.next_page()

    async def __aiter__(self) -> AsyncIterator[T]:
        page: Page[T] | None = self
        while page is not None:
            for item in page.data:
                yield item
            page = await page.anext_page()


def read_page(
    page_class: type[AnyPage],
    rows: "QuerySet[Row]",
    convert: Callable[[Row], Any],
    page_size: int,
    after: str | None,
    before: str | None,
) -> AnyPage:
    """One page of these rows. `before` wins over `after` (wire-protocol 5.2). Raises InvalidOption."""
    if isinstance(page_size, bool) or not isinstance(page_size, int) or not 1 <= page_size <= 100:
        raise InvalidOption(f"page_size must be a whole number from 1 to 100, not {page_size!r}.")
    _check_cursor(rows.model, before or after)
    # One more than asked for tells whether there are more in that direction.
    if before:
        found = list(rows.filter(pk__gt=before).order_by("pk")[: page_size + 1])
        page, has_newer = list(reversed(found[:page_size])), len(found) > page_size
        has_older = bool(page) and rows.filter(pk__lt=page[-1].pk).exists()
    else:
        found = list((rows.filter(pk__lt=after) if after else rows).order_by("-pk")[: page_size + 1])
        page, has_older = found[:page_size], len(found) > page_size
        has_newer = bool(after and page) and rows.filter(pk__gt=page[0].pk).exists()
    return page_class(
        data=[convert(row) for row in page],
        next=page[-1].pk if has_older else None,
        previous=page[0].pk if has_newer else None,
        _turn=lambda cursor: read_page(page_class, rows, convert, page_size, cursor, None),
    )


def _check_cursor(model: type[Model], cursor: str | None) -> None:
    if cursor is not None and not ("\0" not in cursor and model._default_manager.filter(pk=cursor).exists()):
        raise InvalidOption(f"The cursor {cursor!r} is not the id of a {model._meta.verbose_name}.")


def several(value: str | Iterable[str]) -> list[str]:
    """What a filter takes: one text or some. Raises InvalidOption."""
    values = [value] if isinstance(value, str) else list(value)
    if not all(isinstance(item, str) for item in values):
        raise InvalidOption(f"A filter takes texts, not {value!r}.")
    return values


def check_statuses(statuses: Iterable[str], known: Iterable[str]) -> None:
    """Raises InvalidOption for an unknown one."""
    if unknown := set(statuses).difference(known):
        raise InvalidOption(f"Unknown status {min(unknown)!r}; there are {', '.join(known)}.")


def created(rows: Rows, after: datetime | None, before: datetime | None, period: timedelta | None) -> Rows:
    """Those that were created then. Raises InvalidOption for a naive time."""
    if after is not None:
        rows = rows.filter(created_at__gte=_aware(after, "created_after"))
    if before is not None:
        rows = rows.filter(created_at__lte=_aware(before, "created_before"))
    if period is not None:
        rows = rows.filter(created_at__gte=FromNow(-period))
    return rows


def _aware(value: datetime, what: str) -> datetime:
    if timezone.is_naive(value):
        raise InvalidOption(f"{what} {value!r} has no time zone.")
    return value.astimezone(UTC)  # PostgreSQL refuses offsets of 16 hours and more
