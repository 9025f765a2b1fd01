"""The session of a user of the site, for consumers, which Django's middleware does not see."""

from importlib import import_module
from io import BytesIO
from typing import Any, Final

from django.apps import apps
from django.conf import settings
from django.contrib.auth import SESSION_KEY, get_user
from django.core.handlers.asgi import ASGIRequest
from django.utils.functional import SimpleLazyObject
from rest_framework.exceptions import PermissionDenied

from realtime_runs.access.principals import Principal, SiteUser
from realtime_runs.wire.authentication import principal_of

_SCHEMES: Final = {"ws": "http", "wss": "https"}


def handshake_of(scope: Any) -> dict[str, Any]:
    """The HTTP request with which a WebSocket was opened, as an ASGI scope."""
    scheme = scope.get("scheme", "ws")
    return {**scope, "type": "http", "method": "GET", "scheme": _SCHEMES.get(scheme, scheme)}


def principal_of_socket(scope: Any) -> Principal:
    """The same for a WebSocket. A browser opens one to any site, with that site's cookies, and cannot send a CSRF token
    with it: so a session is good only with an Origin that is the site's own, or one that it trusts.
    """
    principal = principal_of_scope(handshake_of(scope))  # refuses an Origin of another site
    if isinstance(principal, SiteUser) and not any(name == b"origin" for name, _ in scope["headers"]):
        raise PermissionDenied("A session is good for pages of its own site only.")
    return principal


def principal_of_scope(scope: Any) -> Principal:
    """As `principal_of` for a view. Queries the database where a session cookie was sent."""
    request: Any = ASGIRequest(scope, BytesIO())
    if "user" in scope and not _is_of_session(scope):  # the project has a middleware of its own around us
        request.user, request.session = scope["user"], scope.get("session")
    elif apps.is_installed("django.contrib.sessions") and apps.is_installed("django.contrib.auth"):
        request.session = import_module(settings.SESSION_ENGINE).SessionStore(
            request.COOKIES.get(settings.SESSION_COOKIE_NAME)
        )
        # After a rotation of SECRET_KEY, Django gives a session a new key. Here no cookie could say it to the browser,
        # whose user would be logged out.
        request.session.cycle_key = lambda: None
        request.user = SimpleLazyObject(lambda: get_user(request))
    return principal_of(request)


def _is_of_session(scope: Any) -> bool:
    """Whether Channels' AuthMiddlewareStack has found the user. It did so once, and a logout would go unseen."""
    session = scope.get("session")
    return session is not None and str(session.get(SESSION_KEY)) == str(scope["user"].pk)
