"""Pages of a table of any length: each begins behind a row, and nothing counts the table."""

from typing import Any, Final

from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest

from realtime_runs.admin import bounded

BEHIND: Final = "behind"  # the page that follows this row
BEFORE: Final = "before"  # the page that ends before it
COUNTS: Final = "counts"  # no page: the filters are wanted, to count with


class KeysetChangeList(ChangeList):
    """In the order of the model's key: the `ordering` of its admin is `("-pk",)` or `("pk",)`. Other orders would read
    the whole table, so there are none. `bounded_count` is how many rows the filters let through.
    """

    older_url = newer_url = ""

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> "QuerySet[Any]":
        self.is_counting = self._take(COUNTS) is not None
        self.behind, self.before = self._take(BEHIND), self._take(BEFORE)
        if "\0" in f"{self.behind}{self.before}":
            raise IncorrectLookupParameters
        found: QuerySet[Any] = super().get_queryset(request, exclude_parameters)
        return found

    def _take(self, name: str) -> str | None:
        self.filter_params.pop(name, None)
        value: str | None = self.params.pop(name, None)
        return value

    def get_ordering(self, request: HttpRequest, queryset: "QuerySet[Any]") -> list[Any]:
        return list(self.model_admin.ordering or ())

    def get_results(self, request: HttpRequest) -> None:
        rows = [] if self.is_counting else self._page()
        self.bounded_count = self._count(rows)
        self.result_list = rows
        self.result_count = self.bounded_count.number
        self.full_result_count = None
        self.show_full_result_count = False
        self.show_admin_actions = False
        self.can_show_all = False
        self.multi_page = bool(self.older_url or self.newer_url)
        self.paginator = None

    def _page(self) -> list[Any]:
        descends = self.model_admin.ordering == ("-pk",)
        size, rows = self.list_per_page, self.queryset
        onwards, back = ("lt", "gt") if descends else ("gt", "lt")
        if self.before is not None:
            found = list(rows.filter(**{f"pk__{back}": self.before}).reverse()[: size + 1])
            page, has_newer, has_older = found[:size][::-1], len(found) > size, True
        else:
            if self.behind is not None:
                rows = rows.filter(**{f"pk__{onwards}": self.behind})
            found = list(rows[: size + 1])
            page, has_newer, has_older = found[:size], self.behind is not None, len(found) > size
        goes_on_at = page[-1].pk if page and has_older else self._cut_at
        self.older_url = self.get_query_string({BEHIND: goes_on_at}) if goes_on_at else ""
        self.newer_url = self.get_query_string({BEFORE: page[0].pk}) if page and has_newer else ""
        return page

    @property
    def first_url(self) -> str:
        url: str = self.get_query_string()
        return url

    @property
    def is_first(self) -> bool:
        return not self.newer_url and self.behind is None

    def _count(self, rows: list[Any]) -> bounded.Count:
        if self.is_counting:
            return bounded.Count(0)
        if self.is_first and not self.older_url:
            return bounded.Count(len(rows))
        found = bounded.count(self.queryset)
        return bounded.Count(found.number, found.is_more or bool(self._cut_at))

    @property
    def _cut_at(self) -> str | None:
        """Where a filter has let a part of its rows through, and has more behind it."""
        return next((cut for spec in self.filter_specs if (cut := getattr(spec, "cut_at", None))), None)
