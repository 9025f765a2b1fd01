"""Batches, tags and wait tokens in the admin, to look at."""

from typing import Any, Final

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from realtime_runs.access.policy import get_policy
from realtime_runs.admin import bounded, columns, run_page
from realtime_runs.admin.access import ReadOnly
from realtime_runs.admin.changelist import BEFORE, BEHIND, KeysetChangeList
from realtime_runs.admin.pages import missing, page_context
from realtime_runs.display import elements
from realtime_runs.display.text import showable
from realtime_runs.live.snapshot import snapshot
from realtime_runs.models import Batch, Run, Tag, WaitToken
from realtime_runs.models.run import RunQuerySet
from realtime_runs.models.wait_token import WaitTokenStatus

_MOST_RUNS: Final = 50


class Looked(ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]  # not generic at run time
    """A list in the order of its key, and a page of each without a form."""

    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    sortable_by = ()
    actions = None
    list_per_page = 50
    change_list_template = "admin/realtime_runs/plain_list.html"
    page_template: str
    parameters = frozenset({BEHIND, BEFORE})

    class Media:
        css = {"all": ["realtime_runs/admin/admin.css"]}

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[KeysetChangeList]:
        return KeysetChangeList

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        return lookup in self.parameters

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        title = str(self.opts.verbose_name_plural).capitalize()
        return super().changelist_view(request, {"title": title, **(extra_context or {})})

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        return None if "\0" in object_id else super().get_object(request, object_id, from_field)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        found = self.get_object(request, unquote(object_id))
        if not self.has_view_permission(request, found) or request.method not in ("GET", "HEAD"):
            raise PermissionDenied
        if found is None:
            return missing(self, request, object_id)
        context = {
            **page_context(self, request, showable(str(found.pk))),
            "object": found,
            **self.page(request, found),
            **(extra_context or {}),
        }
        return TemplateResponse(request, self.page_template, context)

    def page(self, request: HttpRequest, found: Any) -> dict[str, Any]:
        raise NotImplementedError

    def runs(self, request: HttpRequest, runs: RunQuerySet, **filters: str) -> dict[str, Any]:
        """For a page: the newest of these runs that the user may see, and a link to all."""
        site = self.admin_site.name
        if not any(request.user.has_perm(f"realtime_runs.{name}_run") for name in ("view", "change")):
            runs = runs.none()
        visible = get_policy().visible(request.user, runs)
        found = [snapshot(run_page.listed(run)) for run in run_page.without_texts(visible.order_by("-pk"))[:_MOST_RUNS]]
        return {
            "runs": [columns.cells(site, run) for run in found],
            "runs_count": bounded.count(visible),
            "runs_url": columns.list_url(site, **filters),
        }


@admin.register(Batch)
class BatchAdmin(Looked):
    list_display = ("id", "run_count", "is_complete", "created", "its_runs")
    search_fields = ("=id",)
    search_help_text = "Id of a batch"
    ordering = ("-pk",)
    page_template = "admin/realtime_runs/batch.html"

    @admin.display(description="all runs made", boolean=True)
    def is_complete(self, batch: Batch) -> bool:
        return not batch.is_open

    @admin.display(description="created")
    def created(self, batch: Batch) -> SafeString | str:
        return columns.when(batch.created_at)

    @admin.display(description="runs as a list")
    def its_runs(self, batch: Batch) -> SafeString:
        return _its_runs(columns.list_url(self.admin_site.name, batch=batch.pk), f"of batch {batch.pk}")

    def page(self, request: HttpRequest, found: Batch) -> dict[str, Any]:
        shown = self.runs(request, Run.objects.filter(batch=found), batch=found.pk)
        return {**shown, "progress": elements.batch_progress(found.pk)}


@admin.register(Tag)
class TagAdmin(Looked):
    list_display = ("shown_name", "created", "its_runs")
    search_fields = ("name__startswith",)
    search_help_text = "The beginning of a tag"
    ordering = ("pk",)
    page_template = "admin/realtime_runs/tag.html"

    @admin.display(description="name")
    def shown_name(self, tag: Tag) -> str:
        return showable(tag.name)

    @admin.display(description="first seen")
    def created(self, tag: Tag) -> SafeString | str:
        return columns.when(tag.created_at)

    @admin.display(description="runs as a list")
    def its_runs(self, tag: Tag) -> SafeString:
        return _its_runs(columns.list_url(self.admin_site.name, tag=tag.pk), f"with the tag {tag.pk}")

    def page(self, request: HttpRequest, found: Tag) -> dict[str, Any]:
        return self.runs(request, Run.objects.tagged([found.pk]), tag=found.pk)


class TokenStatusFilter(admin.SimpleListFilter):
    title = "status"
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(status.value, str(status.label)) for status in WaitTokenStatus]

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Any]") -> "QuerySet[Any]":
        return queryset.filter(status=self.value()) if self.value() in WaitTokenStatus.values else queryset


@admin.register(WaitToken)
class WaitTokenAdmin(Looked):
    list_display = ("id", "status", "shown_tags", "created", "timeout")
    list_filter = (TokenStatusFilter,)
    search_fields = ("=id",)
    search_help_text = "Id of a wait token"
    ordering = ("-pk",)
    page_template = "admin/realtime_runs/wait_token.html"
    parameters = Looked.parameters | {"status"}

    def get_queryset(self, request: HttpRequest) -> "QuerySet[Any]":
        return super().get_queryset(request).defer("output")

    @admin.display(description="tags")
    def shown_tags(self, token: WaitToken) -> str:
        return showable(", ".join(token.tag_names))

    @admin.display(description="created")
    def created(self, token: WaitToken) -> SafeString | str:
        return columns.when(token.created_at)

    @admin.display(description="times out")
    def timeout(self, token: WaitToken) -> SafeString | str:
        return columns.when(token.timeout_at)

    def page(self, request: HttpRequest, found: WaitToken) -> dict[str, Any]:
        return {
            "output": run_page.packet_text(found.output, len(found.output or ""), found.output_type),
            "tags": [showable(tag) for tag in found.tag_names],
        }


def _its_runs(url: str, which: str) -> SafeString:
    return format_html('<a href="{}" aria-label="Runs {}">Runs</a>', url, showable(which))
