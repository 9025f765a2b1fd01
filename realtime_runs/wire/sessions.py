"""The session of a user of the site, for consumers, which Django's middleware does not see."""

from importlib import import_module
from io import BytesIO
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_user
from django.core.handlers.asgi import ASGIRequest
from django.utils.functional import SimpleLazyObject

from realtime_runs.access.principals import Principal
from realtime_runs.wire.authentication import principal_of


def principal_of_scope(scope: Any) -> Principal:
    """As `principal_of` for a view. Queries the database where a session cookie was sent."""
    request: Any = ASGIRequest(scope, BytesIO())
    if "user" in scope:  # the project has wrapped us into Channels' own AuthMiddlewareStack
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
