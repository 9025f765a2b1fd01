"""The filters of the list of runs. None of them asks the database what there is to choose from."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

from django.contrib.admin import ListFilter, SimpleListFilter
from django.http import HttpRequest
from django.utils import timezone

from realtime_runs.admin.changelist import BEFORE, BEHIND
from realtime_runs.admin.search import MOST, newest_with_tag
from realtime_runs.engine import registry
from realtime_runs.ids import earliest_run_id
from realtime_runs.models.run import RunQuerySet
from realtime_runs.statuses import RunStatus

_MOST_TASKS: Final = 15

# The clocks of two hosts may differ, and a run of a batch has its id before its row is made.
_CLOCKS_DIFFER: Final = timedelta(hours=1)


class StatusFilter(SimpleListFilter):
    title = "status"
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(status.value, str(status.label)) for status in RunStatus]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        return queryset.filter(status=self.value()) if self.value() in RunStatus.values else queryset


class CreatedFilter(SimpleListFilter):
    title = "time of creation"
    parameter_name = "created"

    PERIODS: Final = {
        "15m": ("Last 15 minutes", timedelta(minutes=15)),
        "1h": ("Last hour", timedelta(hours=1)),
        "1d": ("Last day", timedelta(days=1)),
        "7d": ("Last 7 days", timedelta(days=7)),
    }

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, words) for name, (words, _) in self.PERIODS.items()]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        found = self.PERIODS.get(self.value() or "")
        return queryset if found is None else created_within(queryset, found[1])


def created_within(runs: RunQuerySet, period: timedelta) -> RunQuerySet:
    """Ids begin with their time. So these are the end of the primary key, in the order in which they are shown."""
    since = timezone.now() - period
    return runs.filter(pk__gte=earliest_run_id(since - _CLOCKS_DIFFER), created_at__gte=since)


class TextFilter(ListFilter):
    """A field to type the whole of something into, beside links to some that are known."""

    template = "admin/realtime_runs/text_filter.html"
    parameter_name: str
    label: str

    def __init__(self, request: HttpRequest, params: dict[str, Any], model: Any, model_admin: Any) -> None:
        super().__init__(request, params, model, model_admin)
        given = params.pop(self.parameter_name, None) or [""]
        self.value = given[-1].strip()
        if self.value:
            self.used_parameters[self.parameter_name] = self.value

    def has_output(self) -> bool:
        return True

    def expected_parameters(self) -> list[str | None]:
        return [self.parameter_name]

    def known(self) -> list[str]:
        return []

    def choices(self, changelist: Any) -> Iterator[dict[str, Any]]:
        def link(value: str | None) -> str:
            url: str = changelist.get_query_string({self.parameter_name: value})
            return url

        known = self.known()
        yield {
            "all": link(None),
            "links": [(name, link(name), name == self.value) for name in known],
            "typed": "" if self.value in known else self.value,
            "others": [
                (name, value)
                for name, values in changelist.filter_params.items()
                if name != self.parameter_name
                for value in values
            ],
        }

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        if not self.value:
            return queryset
        return queryset.none() if "\0" in self.value else self.only(queryset)

    def only(self, runs: RunQuerySet) -> RunQuerySet:
        raise NotImplementedError


class TaskFilter(TextFilter):
    title = "task"
    parameter_name = "task"
    label = "Id of a task"

    def known(self) -> list[str]:
        """The tasks of this process, not those of the table: finding them there would take a look at each run."""
        return sorted(registry.ids())[:_MOST_TASKS]

    def only(self, runs: RunQuerySet) -> RunQuerySet:
        return runs.filter(task=self.value)


class TagFilter(TextFilter):
    """Of the runs with the tag it lets a part through, from where the page begins. `cut_at`: the last run of that part,
    if others may follow.
    """

    title = "tag"
    parameter_name = "tag"
    label = "Tag"
    cut_at: str | None = None

    def __init__(self, request: HttpRequest, params: dict[str, Any], model: Any, model_admin: Any) -> None:
        super().__init__(request, params, model, model_admin)
        self._place = request.GET.get(BEHIND), request.GET.get(BEFORE)

    def only(self, runs: RunQuerySet) -> RunQuerySet:
        ids = newest_with_tag(self.value, *self._place)
        self.cut_at = ids[-1] if len(ids) == MOST else None
        return runs.filter(pk__in=ids)


class BatchFilter(TextFilter):
    title = "batch"
    parameter_name = "batch"
    label = "Id of a batch"

    def only(self, runs: RunQuerySet) -> RunQuerySet:
        return runs.filter(batch=self.value)
