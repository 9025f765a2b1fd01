"""The demo's pages. They only show and ask: what runs are and do is `realtime_runs`' business."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, Final, ParamSpec

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from project import access
from project.forms import TriggerForm, sample_forms
from project.presentation import columns, detail, summary
from project.tasks import approval
from realtime_runs import runs, wait
from realtime_runs.exceptions import InvalidInput, NotFound, StreamClosed

P = ParamSpec("P")
View = Callable[Concatenate[HttpRequest, P], HttpResponse]

# Scripts and styles come from our own files, so whatever somebody smuggles into a payload cannot run.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
PAGE_SIZE: Final = 25
BOARD_SIZE: Final = 100


def page(view: View[P]) -> View[P]:
    """What all views share: the policy, no caching, and a page that says so when something does not exist."""

    @never_cache
    @wraps(view)
    def shown(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        try:
            response = view(request, *args, **kwargs)
        except NotFound as error:
            response = render(request, "project/problem.html", {"problem": str(error)}, status=404)
        except InvalidInput as error:  # a cursor or a tag that is none
            response = render(request, "project/problem.html", {"problem": str(error)}, status=400)
        response["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
        return response

    return shown


@require_GET
@page
def home(request: HttpRequest) -> HttpResponse:
    return show_home(request)


def show_home(request: HttpRequest, submitted: TriggerForm | None = None) -> HttpResponse:
    found = runs.list(
        page_size=PAGE_SIZE, after=request.GET.get("after") or None, before=request.GET.get("before") or None
    )
    context = {
        "samples": sample_forms(submitted),
        "runs": [summary(run) for run in found.data],
        "older": found.next,
        "newer": found.previous,
        **access.context(),
    }
    return render(request, "project/home.html", context, status=400 if submitted else 200)


@require_POST
@page
def trigger(request: HttpRequest) -> HttpResponse:
    form = TriggerForm(request.POST)
    run_id = form.trigger() if form.is_valid() else None
    return redirect("run", run_id) if run_id else show_home(request, submitted=form)


@require_GET
@page
def run(request: HttpRequest, run_id: str) -> HttpResponse:
    context = {"run": detail(runs.retrieve(run_id)), **access.context(run_id=run_id)}
    return render(request, "project/run.html", context)


@require_POST
@page
def cancel(request: HttpRequest, run_id: str) -> HttpResponse:
    runs.cancel(run_id)
    return redirect("run", run_id)


@require_http_methods(["GET", "POST"])
@page
def decision(request: HttpRequest, run_id: str) -> HttpResponse:
    """The page of who approves: another person, in another tab."""
    found = runs.retrieve(run_id)
    context: dict[str, Any] = {"run": detail(found), **access.context(run_id=run_id)}
    if request.method == "POST":
        context["answer"] = "approved" if "approve" in request.POST else "rejected"
        try:
            answer(found, {"approved": "approve" in request.POST})
        except StreamClosed:
            context |= {"answer": "", "is_late": True}
    return render(request, "project/decision.html", context)


def answer(run: runs.RealtimeRun[Any, Any], value: dict[str, bool]) -> None:
    """The task waits for a wait token, or for a record of its input stream: its payload says which."""
    token_id = getattr(run.payload, "token_id", None)
    if token_id:
        wait.complete_token(token_id, value)
    else:
        approval.send(run.id, value)


@require_GET
@page
def board(request: HttpRequest, tag: str) -> HttpResponse:
    """All runs of a tag, in columns by what they do; the newest hundred."""
    found = runs.list(tag=tag, page_size=BOARD_SIZE)
    context = {
        "tag": tag,
        "columns": columns(found.data),
        "oldest": found.data[-1].created_at if found.next else None,
        **access.context(tag=tag),
    }
    return render(request, "project/board.html", context)
