"""Who sent a request: by its Authorization header, or else by the session of a logged-in user of the site."""

from django.http import HttpRequest
from rest_framework.authentication import SessionAuthentication

from realtime_runs.access.principals import Principal, SiteUser, from_header
from realtime_runs.exceptions import InvalidToken


def principal_of(request: HttpRequest) -> Principal:
    """Raises InvalidToken without a valid credential, and DRF's PermissionDenied for an unsafe request of a session
    without its CSRF token. May query the database.
    """
    if authorization := request.headers.get("Authorization"):
        return from_header(authorization)
    user = getattr(request, "user", None)
    if user is not None and user.is_authenticated and user.is_active:
        SessionAuthentication().enforce_csrf(request)  # type: ignore[arg-type]  # it only hands it on to Django
        return SiteUser(user)
    raise InvalidToken("Send the header `Authorization: Bearer <secret key or public token>`, or log in.")
