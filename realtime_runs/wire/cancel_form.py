"""`POST /pages/runs/{run}/cancel`: the form of `{% run_cancel_button %}`, for the users of the site."""

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.http.response import HttpResponseBase
from django.urls import get_script_prefix
from django.utils.decorators import method_decorator
from django.utils.http import url_has_allowed_host_and_scheme
from django.views import View
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect

from realtime_runs import runs
from realtime_runs.access import rules
from realtime_runs.models import Run
from realtime_runs.wire.authentication import site_user
from realtime_runs.wire.errors import refusal


# The CSRF check also where the project has none: this takes a session and a form.
@method_decorator([never_cache, csrf_protect], name="dispatch")
class CancelFormView(View):
    """Cancels the run and goes back to the page in the field `next`, if that is one of this site.

    A script that asks for JSON gets `{"id", "status"}`, or `{"error"}` with the status 403 or 404.
    """

    http_method_names = ["post"]

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            return super().dispatch(request, *args, **kwargs)
        except (PermissionDenied, Http404) as error:
            if not _wants_json(request):
                raise
            refused = refusal(error)
            return JsonResponse(refused.body, status=refused.status)

    def post(self, request: HttpRequest, run_id: str) -> HttpResponse:
        user = site_user(request)
        row = Run.objects.without_packets().find(run_id)
        if user is None or not user.may(rules.cancel(run_id, row)):
            raise PermissionDenied
        if row is None:
            raise Http404
        run = runs.cancel(run_id)
        if _wants_json(request):
            return JsonResponse({"id": run.id, "status": run.status.value})
        return HttpResponseRedirect(_next(request))


def _wants_json(request: HttpRequest) -> bool:
    return "application/json" in request.headers.get("Accept", "")


def _next(request: HttpRequest) -> str:
    wanted = request.POST.get("next", "")
    is_safe = url_has_allowed_host_and_scheme(wanted, {request.get_host()}, require_https=request.is_secure())
    return wanted if is_safe else get_script_prefix()
