"""The demo project's pages, and views that tests look at."""

import asyncio

from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.template import RequestContext, Template
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


ELEMENTS = Template("""{% load realtime_runs %}<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Elements</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<link rel="icon" href="/static/project/icon.svg">{% realtime_runs_js token=token %}
{% if script %}<script type="module" src="{{ script }}"></script>{% endif %}</head><body><main><h1>Elements</h1>
{% for run in runs %}<section data-of="{{ run }}"><h2>{{ run }}</h2><div>{% run_status run %} {% run_cancel_button run %}</div>
{% run_progress run %} {% for key in keys %}{% run_stream run key %}{% endfor %}</section>{% endfor %}
{% for batch in batches %}{% batch_progress batch %}{% endfor %}</main></body></html>""")
STRICT = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)


def elements(request: HttpRequest) -> HttpResponse:
    """All elements of the runs and batches that are asked for, under a strict policy."""
    context = {
        "runs": request.GET.getlist("run"),
        "keys": request.GET.getlist("key"),
        "batches": request.GET.getlist("batch"),
        "token": request.GET.get("token", ""),
        "script": request.GET.get("script", ""),
    }
    page = ELEMENTS.render(RequestContext(request, context))
    return HttpResponse(page, headers={"Content-Security-Policy": f"{STRICT}; require-trusted-types-for 'script'"})


def empty(request: HttpRequest) -> HttpResponse:
    """A page for scripts of tests, under a strict policy."""
    page = (
        "<!doctype html><html lang=en><title>Empty</title><link rel=icon href=/static/project/icon.svg><h1>Empty</h1>"
    )
    return HttpResponse(page, headers={"Content-Security-Policy": STRICT})


urlpatterns = [
    path("tests/empty", empty),
    path("tests/elements", elements),
    path("tests/stream/<run_id>/<key>", stream),
    path("tests/sync-stream/<run_id>/<key>", stream_in_sync_view),
    path("tests/listeners", listeners),
    path("tests/load", load),
    path("", include("project.urls")),
]
