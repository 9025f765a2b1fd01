"""The session of a user of the site, for consumers, which Django's middleware does not see."""

from importlib import import_module
from io import BytesIO
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_user
from django.core.handlers.asgi import ASGIRequest

from realtime_runs.access.principals import Principal
from realtime_runs.wire.authentication import principal_of


def principal_of_scope(scope: Any) -> Principal:
    """As `principal_of` for a view. Queries the database where a session cookie was sent.

    The CSRF token of an unsafe request is expected in its header, as pages that use `fetch` send it.
    """
    request: Any = ASGIRequest(scope, BytesIO())
    if "user" in scope:  # the project has wrapped us into Channels' own AuthMiddlewareStack
        request.user = scope["user"]
    elif apps.is_installed("django.contrib.sessions") and apps.is_installed("django.contrib.auth"):
        key = request.COOKIES.get(settings.SESSION_COOKIE_NAME)
        if key:
            request.session = import_module(settings.SESSION_ENGINE).SessionStore(key)
            request.user = get_user(request)
    return principal_of(request)
