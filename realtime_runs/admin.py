"""Runs, batches and tags in the Django admin, to look at. Rows change by the moves of the engine, never here."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from realtime_runs.models import Attempt, Batch, Run, RunEvent, Tag


class ReadOnly:
    """Whoever has the view permission may look; nobody may change."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class AttemptInline(ReadOnly, admin.TabularInline):  # type: ignore[type-arg]  # not generic at run time
    model = Attempt
    fields = ("number", "worker", "started_at", "finished_at", "error")
    extra = 0


class EventInline(ReadOnly, admin.TabularInline):  # type: ignore[type-arg]  # not generic at run time
    model = RunEvent
    fields = ("status", "attempt", "at")
    extra = 0


@admin.register(Run)
class RunAdmin(ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]  # not generic at run time
    list_display = ("id", "task", "status", "tag_names", "attempt", "created_at", "started_at", "finished_at")
    list_filter = ("status",)
    search_fields = ("=id",)
    ordering = ("-id",)
    show_full_result_count = False  # counting millions of runs would take longer than showing them
    exclude = ("tags", "lease_token")
    inlines = (EventInline, AttemptInline)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Run]:
        runs = super().get_queryset(request)
        is_list = (
            request.resolver_match is not None and request.resolver_match.url_name == "realtime_runs_run_changelist"
        )
        return runs.defer("payload", "output", "error", "metadata") if is_list else runs


class ReadOnlyAdmin(ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]  # not generic at run time
    show_full_result_count = False


@admin.register(Batch)
class BatchAdmin(ReadOnlyAdmin):
    list_display = ("id", "run_count", "created_at")
    search_fields = ("=id",)
    ordering = ("-id",)


@admin.register(Tag)
class TagAdmin(ReadOnlyAdmin):
    list_display = ("name", "created_at")
    search_fields = ("name__startswith",)
    ordering = ("name",)
