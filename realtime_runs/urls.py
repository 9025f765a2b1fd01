"""`path("", include("realtime_runs.urls"))`: the REST half of the API, and its documentation.

The other half, `realtime/`, is served by the line of asgi.py: see `realtime_runs.routing`.
"""

from django.urls import path, re_path

from realtime_runs.wire.rest import tokens
from realtime_runs.wire.rest.base import NotFoundView

app_name = "realtime_runs"

urlpatterns = [
    path("api/v1/auth/jwt/claims", tokens.ClaimsView.as_view()),
    path("api/v1/auth/public-tokens", tokens.PublicTokenView.as_view()),
    re_path(r"^api/.*$", NotFoundView.as_view()),
]
