"""The demo project's pages, and views that tests look at."""

import asyncio

from django.http import HttpRequest, HttpResponseBase, JsonResponse
from django.urls import include, path

from realtime_runs import streams
from realtime_runs.live.hub import hub


async def stream(request: HttpRequest, run_id: str, key: str) -> HttpResponseBase:
    return streams.read(run_id, key).as_response(request)


def stream_in_sync_view(request: HttpRequest, run_id: str, key: str) -> HttpResponseBase:
    return streams.read(run_id, key).as_response(request)


def listeners(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"count": hub.listener_count})


async def load(request: HttpRequest) -> JsonResponse:
    """What the readers of this server cost just now."""
    return JsonResponse({"listeners": hub.listener_count, "tasks": len(asyncio.all_tasks())})


urlpatterns = [
    path("tests/stream/<run_id>/<key>", stream),
    path("tests/sync-stream/<run_id>/<key>", stream_in_sync_view),
    path("tests/listeners", listeners),
    path("tests/load", load),
    path("", include("project.urls")),
]
