"""Lists, page by page."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from realtime_runs.client.objects import id_of
from realtime_runs.client.options import whole_seconds, wire_value
from realtime_runs.client.transport import Transport, run_sync

T = TypeVar("T")

# The filters of all lists.
CREATED: Final = {
    "created_after": "filter[createdAt][from]",
    "created_before": "filter[createdAt][to]",
    "period": "filter[createdAt][period]",
}
_PAGE: Final = {"page_size": "page[size]", "after": "page[after]", "before": "page[before]"}


@dataclass(frozen=True)
class Page(Generic[T]):
    """One page of a list, newest first; iterating it goes on through all later pages."""

    data: list[T]
    next: str | None
    previous: str | None
    _turn: "Callable[[str], Awaitable[Page[T]]]" = field(repr=False)

    def next_page(self) -> "Page[T] | None":
        return run_sync(_awaited(self._turn(self.next))) if self.next else None

    async def anext_page(self) -> "Page[T] | None":
        return await self._turn(self.next) if self.next else None

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


async def read_page(
    transport: Transport, path: str, names: Mapping[str, str], convert: Callable[[Any], T], filters: Mapping[str, Any]
) -> Page[T]:
    """`names`: of the filters that the list has, on the wire. Raises TypeError for another one, InvalidOption."""
    known = {**names, **_PAGE}
    if unknown := filters.keys() - known.keys():
        raise TypeError(f"There is no filter {min(unknown)!r}.")
    params = {known[name]: _text(name, value) for name, value in filters.items() if value is not None}
    found = (await transport.call("GET", path, params=params)).data
    others = {name: value for name, value in filters.items() if name not in ("after", "before")}
    return Page(
        data=[convert(fields) for fields in found["data"]],
        next=found["pagination"].get("next"),
        previous=found["pagination"].get("previous"),
        _turn=lambda cursor: read_page(transport, path, names, convert, {**others, "after": cursor}),
    )


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if name == "period":
        return whole_seconds(value, name)
    if name in CREATED or isinstance(value, str | int):
        return str(wire_value(value))
    return id_of(value) if hasattr(value, "id") else ",".join(value)


async def _awaited(coming: Awaitable[T]) -> T:
    return await coming
