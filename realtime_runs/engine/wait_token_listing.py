"""Pages of wait tokens."""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from asgiref.sync import sync_to_async
from django.utils import timezone

from realtime_runs.engine.wait_tokens import WaitToken, snapshot
from realtime_runs.exceptions import InvalidOption
from realtime_runs.models import FromNow
from realtime_runs.models import WaitToken as Row
from realtime_runs.models.wait_token import WaitTokenQuerySet, WaitTokenStatus
from realtime_runs.packets import check_text


@dataclass(frozen=True)
class WaitTokenPage:
    """Wait tokens, newest first. `next`: cursor for `after`, when older ones follow; `previous`: for `before`, when
    newer ones do.
    """

    data: list[WaitToken]
    next: str | None
    previous: str | None
    _turn: Callable[[str], "WaitTokenPage"] = field(repr=False)

    def next_page(self) -> "WaitTokenPage | None":
        return self._turn(self.next) if self.next else None

    async def anext_page(self) -> "WaitTokenPage | None":
        return await sync_to_async(self.next_page)()

    def __iter__(self) -> Iterator[WaitToken]:
        page: WaitTokenPage | None = self
        while page is not None:
            yield from page.data
            page = page.next_page()

    async def __aiter__(self) -> AsyncIterator[WaitToken]:
        page: WaitTokenPage | None = self
        while page is not None:
            for token in page.data:
                yield token
            page = await page.anext_page()


def list_tokens(tokens: WaitTokenQuerySet, page_size: int, after: str | None, before: str | None) -> WaitTokenPage:
    """One page. `before` wins over `after`. The cursor is the id of a token, exclusive; ids begin with their time."""
    if isinstance(page_size, bool) or not isinstance(page_size, int) or not 1 <= page_size <= 100:
        raise InvalidOption(f"page_size must be a whole number from 1 to 100, not {page_size!r}.")
    cursor = before or after
    if cursor is not None and not ("\0" not in cursor and Row.objects.filter(pk=cursor).exists()):
        raise InvalidOption(f"The cursor {cursor!r} is not the id of a wait token.")
    if before:
        page = list(reversed(tokens.filter(pk__gt=before).order_by("pk")[:page_size]))
    else:
        page = list((tokens.filter(pk__lt=after) if after else tokens).order_by("-pk")[:page_size])
    has_older = bool(page) and tokens.filter(pk__lt=page[-1].pk).exists()
    has_newer = bool(page) and tokens.filter(pk__gt=page[0].pk).exists()
    return WaitTokenPage(
        data=[snapshot(row) for row in page],
        next=page[-1].pk if has_older else None,
        previous=page[0].pk if has_newer else None,
        _turn=lambda cursor: list_tokens(tokens, page_size, cursor, None),
    )


def filtered(
    *,
    status: str | Iterable[str] | None,
    tags: str | Iterable[str] | None,
    idempotency_key: str | None,
    created_after: datetime | None,
    created_before: datetime | None,
    period: timedelta | None,
) -> WaitTokenQuerySet:
    """Raises InvalidOption for an unknown status or a naive time, NotJson for a text that no token can have."""
    tokens = Row.objects.all()
    if status is not None:
        statuses = _several(status)
        if unknown := set(statuses) - set(WaitTokenStatus.values):
            raise InvalidOption(
                f"Unknown status {sorted(unknown)[0]!r}; there are {', '.join(WaitTokenStatus.values)}."
            )
        tokens = tokens.filter(status__in=statuses)
    if tags is not None:
        tokens = tokens.tagged_any(_several(tags))
    if idempotency_key is not None:
        tokens = tokens.filter(idempotency_key__in=_several(idempotency_key))
    if created_after is not None:
        tokens = tokens.filter(created_at__gte=_aware(created_after, "created_after"))
    if created_before is not None:
        tokens = tokens.filter(created_at__lte=_aware(created_before, "created_before"))
    if period is not None:
        tokens = tokens.filter(created_at__gte=FromNow(-period))
    return tokens


def _several(value: str | Iterable[str]) -> list[str]:
    values = [value] if isinstance(value, str) else list(value)
    for item in values:
        if not isinstance(item, str):
            raise InvalidOption(f"A filter takes texts, not {item!r}.")
        check_text(item, "A filter")
    return values


def _aware(value: datetime, what: str) -> datetime:
    if timezone.is_naive(value):
        raise InvalidOption(f"{what} {value!r} has no time zone.")
    return value
