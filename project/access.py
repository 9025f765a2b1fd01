"""Who may watch: a visitor of the demo, who has not logged in, gets a token for what the page shows, and no more."""

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from realtime_runs import auth


def scopes_of(*, run_id: str = "", tag: str = "") -> list[str]:
    """What the page of a run, the board of a tag, or the list of all runs may read."""
    if run_id:
        return [f"read:runs:{run_id}"]
    return [f"read:tags:{tag}"] if tag else ["read:runs"]


def context(**page: str) -> dict[str, str]:
    """For `{% realtime_runs_js %}`: the token, and where the page gets the next one before it expires."""
    return {
        "token": auth.create_public_token(scopes_of(**page), expires_in="15m"),
        "refresh_url": reverse("token", kwargs=page) if page else reverse("token"),
    }


@require_POST
@never_cache
def token(request: HttpRequest, **page: str) -> HttpResponse:
    """Another token for a page that is open for longer. Here everybody may; a real site asks who it is."""
    return JsonResponse({"token": auth.create_public_token(scopes_of(**page), expires_in="15m")})
