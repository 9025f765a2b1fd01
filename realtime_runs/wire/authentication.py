"""Who sent a request: by its Authorization header, or else by the session of a logged-in user of the site."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, QueryDict
from django.utils.datastructures import MultiValueDict
from rest_framework.authentication import CSRFCheck, SessionAuthentication
from rest_framework.exceptions import PermissionDenied

from realtime_runs.access.principals import Principal, SiteUser, from_header
from realtime_runs.exceptions import InvalidToken


def principal_of(request: HttpRequest) -> Principal:
    """Raises InvalidToken without a valid credential, and DRF's PermissionDenied for a request of a session from a page
    of another site, or an unsafe one without the CSRF token in its header. May query the database.
    """
    if authorization := request.headers.get("Authorization"):
        return from_header(authorization)
    user = site_user(request)
    if user is not None:
        _check_page(request)
        return user
    raise InvalidToken("Send the header `Authorization: Bearer <secret key or public token>`, or log in.")


def site_user(request: HttpRequest) -> SiteUser | None:
    """Whoever is logged in. For what changes something, check also which page has sent the request."""
    # PostgreSQL cannot look for a NUL, which a quoted cookie can hold.
    has_session_key = request.COOKIES.get(settings.SESSION_COOKIE_NAME, "").isprintable()
    user = getattr(request, "user", None) if has_session_key else None
    return SiteUser(user) if user is not None and user.is_authenticated and user.is_active else None


def _check_page(request: Any) -> None:
    """A cookie says nothing of the page that had it sent."""
    # Django asks only where something may be changed. Here pages of any site may call, but not as this user.
    check: Any = CSRFCheck(_no_answer)
    if "Origin" in request.headers and not check._origin_verified(request):
        raise PermissionDenied("A session is good for pages of its own site only.")
    # The token is looked for in a form first. There is none: what was sent is not read before it is known who asks.
    request._post, request._files = QueryDict(), MultiValueDict()
    SessionAuthentication().enforce_csrf(request)


def _no_answer(request: HttpRequest) -> HttpResponse:
    raise NotImplementedError  # the check's middleware wants a view, and calls none
