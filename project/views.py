"""The demo's pages. They only show and ask: what runs are and do is `realtime_runs`' business."""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from project.forms import TriggerForm, sample_forms
from project.presentation import detail, summary
from realtime_runs import runs
from realtime_runs.exceptions import RealtimeRunsError, RunNotFound

P = ParamSpec("P")
View = Callable[Concatenate[HttpRequest, P], HttpResponse]

# Scripts and styles come from our own files, so whatever somebody smuggles into a payload cannot run.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
PAGE_SIZE = 25


def page(view: View[P]) -> View[P]:
    """What all views share: the policy, no caching, and a page that says so when a run does not exist."""

    @never_cache
    @wraps(view)
    def shown(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        try:
            response = view(request, *args, **kwargs)
        except RunNotFound as error:
            response = render(request, "project/problem.html", {"problem": str(error)}, status=404)
        response["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
        return response

    return shown


@require_GET
@page
def home(request: HttpRequest) -> HttpResponse:
    return show_home(request)


def show_home(request: HttpRequest, submitted: TriggerForm | None = None) -> HttpResponse:
    try:
        found = runs.list(
            page_size=PAGE_SIZE, after=request.GET.get("after") or None, before=request.GET.get("before") or None
        )
    except RealtimeRunsError as error:  # a cursor that is none of ours
        return render(request, "project/problem.html", {"problem": str(error)}, status=400)
    context = {
        "samples": sample_forms(submitted),
        "runs": [summary(run) for run in found.data],
        "older": found.next,
        "newer": found.previous,
    }
    return render(request, "project/home.html", context, status=400 if submitted else 200)


def back_to_list() -> HttpResponse:
    return redirect(f"{reverse('home')}#latest")  # on a phone the list is below the fold


@require_POST
@page
def trigger(request: HttpRequest) -> HttpResponse:
    form = TriggerForm(request.POST)
    if form.is_valid() and form.trigger():
        return back_to_list()
    return show_home(request, submitted=form)


@require_GET
@page
def run(request: HttpRequest, run_id: str) -> HttpResponse:
    return render(request, "project/run.html", {"run": detail(runs.retrieve(run_id))})


@require_POST
@page
def cancel(request: HttpRequest, run_id: str) -> HttpResponse:
    runs.cancel(run_id)
    return redirect("run", run_id) if "stay" in request.POST else back_to_list()


@require_GET
@page
def home_updates(request: HttpRequest) -> HttpResponse:
    """The summaries of the runs named by `id` (as many as a page shows), as far as they exist: one request for all."""
    found = []
    for run_id in request.GET.getlist("id")[:PAGE_SIZE]:
        try:
            found.append(summary(runs.retrieve(run_id)))
        except RunNotFound:
            continue  # pruned meanwhile; the page keeps what it knew
    return JsonResponse({"runs": found})


@require_GET
@page
def run_updates(request: HttpRequest, run_id: str) -> HttpResponse:
    """The detail of one run, in the same form."""
    return JsonResponse({"runs": [detail(runs.retrieve(run_id))]})
