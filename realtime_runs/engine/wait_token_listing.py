"""Pages of wait tokens."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from realtime_runs.engine.paging import Page, check_statuses, created, read_page, several
from realtime_runs.engine.wait_tokens import WaitToken, snapshot
from realtime_runs.models import WaitToken as Row
from realtime_runs.models.wait_token import WaitTokenQuerySet, WaitTokenStatus
from realtime_runs.packets import check_text


class WaitTokenPage(Page[WaitToken]):
    """Wait tokens, newest first. `next`: cursor for `after`, when older ones follow; `previous`: for `before`, when
    newer ones do.
    """


def list_tokens(
    tokens: WaitTokenQuerySet, page_size: int, after: str | None, before: str | None, *, with_output: bool = True
) -> WaitTokenPage:
    """One page: see `paging.read_page`. Outputs may be megabytes each."""
    if with_output:
        return read_page(WaitTokenPage, tokens, snapshot, page_size, after, before)
    return read_page(WaitTokenPage, tokens.defer("output"), _without_output, page_size, after, before)


def _without_output(row: Row) -> WaitToken:
    row.output = None  # it was not read, and is not asked for
    return snapshot(row)


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
        statuses = _texts(status)
        check_statuses(statuses, WaitTokenStatus.values)
        tokens = tokens.filter(status__in=statuses)
    if tags is not None:
        tokens = tokens.tagged_any(_texts(tags))
    if idempotency_key is not None:
        tokens = tokens.filter(idempotency_key__in=_texts(idempotency_key))
    return created(tokens, created_after, created_before, period)


def _texts(value: str | Iterable[str]) -> list[str]:
    values = several(value)
    for text in values:
        check_text(text, "A filter")
    return values
