"""Runs in the admin: the list, the page of one, and what can be done to it."""

from typing import Any, Final

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.db.models.functions import Left, Length
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.safestring import SafeString

from realtime_runs.access.policy import get_policy
from realtime_runs.admin import bounded, columns, filters, overview, run_page, search
from realtime_runs.admin.access import Steered
from realtime_runs.admin.actions import ACTIONS, RunAction
from realtime_runs.admin.changelist import BEFORE, BEHIND, COUNTS, KeysetChangeList
from realtime_runs.admin.pages import missing, page_context
from realtime_runs.admin.svg import draw_timeline
from realtime_runs.display import elements
from realtime_runs.display.text import showable
from realtime_runs.exceptions import RealtimeRunsError
from realtime_runs.live.snapshot import snapshot
from realtime_runs.models import Run
from realtime_runs.turns import atomic

_TEMPLATES: Final = "admin/realtime_runs/run"
_FILTERS: Final = (
    filters.StatusFilter,
    filters.CreatedFilter,
    filters.TaskFilter,
    filters.TagFilter,
    filters.BatchFilter,
)
_PARAMETERS: Final = {*(each.parameter_name for each in _FILTERS), BEHIND, BEFORE, COUNTS}
_MOST_NEWER: Final = 100


def _script(name: str) -> forms.Script:
    return forms.Script(f"realtime_runs/admin/{name}.js", type="module")


class RunList(KeysetChangeList):
    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> "QuerySet[Run]":
        return run_page.without_texts(super().get_queryset(request, exclude_parameters))


@admin.register(Run)
class RunAdmin(Steered, admin.ModelAdmin):  # type: ignore[type-arg]  # not generic at run time
    list_display = ("status_badge", "its_task", "its_tags", "progress", "duration", "created")
    list_display_links = None
    list_filter = _FILTERS
    list_per_page = 50
    search_fields = ("pk",)  # so that there is a field; `get_search_results` finds
    search_help_text = search.HELP
    ordering = ("-pk",)
    sortable_by = ()
    actions = None
    show_facets = admin.ShowFacets.NEVER
    show_full_result_count = False
    change_list_template = f"{_TEMPLATES}/change_list.html"

    class Media:
        css = {"all": ["realtime_runs/admin/admin.css"]}

    # -- what is seen

    def get_queryset(self, request: HttpRequest) -> "QuerySet[Run]":
        return get_policy().visible(request.user, super().get_queryset(request))

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Run | None:
        """With the beginnings of its payload and output, which may be megabytes."""
        if "\0" in object_id:  # PostgreSQL refuses that character
            return None
        texts = {
            f"{name}_{part}": function
            for name in ("payload", "output")
            for part, function in (("start", Left(name, run_page.LONGEST_TEXT + 1)), ("length", Length(name)))
        }
        runs = self.get_queryset(request).defer("payload", "output").annotate(**texts)
        return runs.filter(pk=object_id).first()

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[KeysetChangeList]:
        return RunList

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        return lookup in _PARAMETERS  # other columns have no index, and some are secret

    def get_search_results(
        self, request: HttpRequest, queryset: "QuerySet[Any]", search_term: str
    ) -> tuple["QuerySet[Any]", bool]:
        return search.search(queryset, search_term), False  # type: ignore[arg-type]  # it is a RunQuerySet

    # -- cells

    @admin.display(description="status")
    def status_badge(self, run: Run) -> SafeString:
        return elements.run_status(_shown(run))

    @admin.display(description="run")
    def its_task(self, run: Run) -> SafeString:
        return columns.link(self.admin_site.name, _shown(run))

    @admin.display(description="tags", empty_value="")
    def its_tags(self, run: Run) -> SafeString:
        return columns.tags(self.admin_site.name, run.tag_names)

    @admin.display(description="progress")
    def progress(self, run: Run) -> SafeString:
        return elements.run_progress(_shown(run))

    @admin.display(description="duration")
    def duration(self, run: Run) -> SafeString:
        return columns.duration(_shown(run))

    @admin.display(description="created")
    def created(self, run: Run) -> SafeString | str:
        return columns.when(run.created_at)

    # -- views

    def get_urls(self) -> list[Any]:
        def at(route: str, view: Any, name: str, **arguments: Any) -> Any:
            full_name = f"{self.opts.app_label}_{self.opts.model_name}_{name}"
            return path(route, self.admin_site.admin_view(view), arguments, name=full_name)

        return [
            at("overview/", self.overview_view, "overview"),
            at("counts/", self.counts_view, "counts"),
            *(at(f"<path:object_id>/{name}/", self.action_view, name, action=each) for name, each in ACTIONS.items()),
            *(at(f"<path:object_id>/{name}/", self.text_view, name, field=name) for name in ("payload", "output")),
            *super().get_urls(),
        ]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        context = {
            "title": "Runs",
            "counters": overview.counters(self.get_queryset(request)),  # type: ignore[arg-type]
            "counts_url": self._url("counts"),
            "overview_url": self._url("overview"),
            "scripts": [_script("list")],
            **(extra_context or {}),
        }
        return super().changelist_view(request, context)

    def counts_view(self, request: HttpRequest) -> HttpResponse:
        """`GET counts/?counts=<id>&<filters>`: how many runs are queued, are executed, failed; and how many of those
        that the filters let through are newer than that one.
        """
        if not self.has_view_permission(request):
            raise PermissionDenied
        found = {kind: str(number) for kind, number in overview.counters(self.get_queryset(request)).items()}  # type: ignore[arg-type]
        newest = request.GET.get(COUNTS, "")
        if newest and "\0" not in newest:
            runs = self.get_changelist_instance(request).queryset
            found["newer"] = str(bounded.count(runs.filter(pk__gt=newest), _MOST_NEWER))
        return JsonResponse(found)

    def overview_view(self, request: HttpRequest) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        context = page_context(self, request, "Overview")
        context |= overview.read(self.get_queryset(request), self.admin_site.name)  # type: ignore[arg-type]
        context["scripts"] = [_script("overview")]
        name = "_overview.html" if "part" in request.GET else "overview.html"
        return TemplateResponse(request, f"{_TEMPLATES}/{name}", context)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        run = self._find(request, object_id)
        if isinstance(run, HttpResponse):
            return run
        if request.method not in ("GET", "HEAD"):
            raise PermissionDenied  # the columns of a run cannot be edited
        site, is_part = self.admin_site.name, "part" in request.GET
        read = run_page.read(run, self.get_queryset(request), _number(request.GET.get("streams", "")) if is_part else 0)
        context = {
            **page_context(self, request, showable(run.task)),
            **read,
            "timeline_picture": draw_timeline(read["timeline"]),
            "tags": columns.tags(site, run.tag_names),
            "children": [columns.cells(site, child) for child in read["children"]],
            "actions": [
                (self._url(each.name, quote(run.pk)), each)
                for each in ACTIONS.values()
                if not each.refusal(run) and self.may(request, each.action, run)
            ],
            "texts_urls": {name: self._url(name, quote(run.pk)) for name in ("payload", "output")},
            "history_url": self._url("history", quote(run.pk)),
            "scripts": [_script("run")],
            **(extra_context or {}),
        }
        return TemplateResponse(request, f"{_TEMPLATES}/{'_run.html' if is_part else 'page.html'}", context)

    def text_view(self, request: HttpRequest, object_id: str, field: str) -> HttpResponse:
        """The whole payload or output, of which a page shows the beginning."""
        run = self._find(request, object_id)
        if isinstance(run, HttpResponse):
            return run
        text: str | None = Run.objects.values_list(field, flat=True).get(pk=run.pk)
        if text is None:
            raise Http404
        response = HttpResponse(showable(text), content_type="text/plain; charset=utf-8")
        response["Content-Disposition"] = f'attachment; filename="{run.pk}-{field}.txt"'
        response["X-Content-Type-Options"] = "nosniff"
        return response

    def action_view(self, request: HttpRequest, object_id: str, action: RunAction) -> HttpResponse:
        run = self._find(request, object_id)
        if isinstance(run, HttpResponse):
            return run
        if not self.may(request, action.action, run):
            raise PermissionDenied
        if refusal := action.refusal(run):
            self.message_user(request, f"{refusal} Nothing was done.", messages.WARNING)
            return HttpResponseRedirect(self._url("change", quote(run.pk)))
        form = action.fill(request, run)
        if request.method == "POST" and form.is_valid() and (done := self._perform(request, action, run, form)):
            return HttpResponseRedirect(done)
        run_url = self._url("change", quote(run.pk))
        context = {
            **page_context(self, request, action.title, (run_url, showable(run.task))),
            **action.context(run),
            "action": action,
            "form": form,
            "run": snapshot(run_page.listed(run)),
            "run_title": showable(run.task),
            "run_url": run_url,
        }
        return TemplateResponse(request, f"{_TEMPLATES}/action.html", context)

    def _perform(self, request: HttpRequest, action: RunAction, run: Run, form: forms.Form) -> str | None:
        """The address to go on to; None when it could not be done, and the form says why."""
        try:
            with atomic():
                done = action.perform(run, form.cleaned_data)
                self.log_change(request, run, done.log)
        except RealtimeRunsError as error:
            form.add_error(None, showable(str(error)))
            return None
        self.message_user(request, done.message, messages.SUCCESS)
        return self._url("change", quote(done.run_id))

    def _find(self, request: HttpRequest, object_id: str) -> "Run | HttpResponse":
        """A run that this user may look at. Who may not see it is told that there is none."""
        run = self.get_object(request, unquote(object_id))
        if not self.has_view_permission(request, run):
            raise PermissionDenied
        if run is None:
            return missing(self, request, object_id)
        return run

    def _url(self, name: str, *arguments: str) -> str:
        full_name = f"admin:{self.opts.app_label}_{self.opts.model_name}_{name}"
        return reverse(full_name, args=arguments, current_app=self.admin_site.name)


def _shown(run: Run) -> columns.AnyRun:
    """Made once for all cells of a row."""
    row: Any = run
    if not hasattr(row, "_snapshot"):
        row._snapshot = snapshot(run_page.listed(run))
    shown: columns.AnyRun = row._snapshot
    return shown


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 5 else 0
