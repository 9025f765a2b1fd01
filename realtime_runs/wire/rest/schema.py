"""The OpenAPI description of `api/`, and a page to try it out."""

from typing import Any, Final

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiJsonRenderer
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView

from realtime_runs import __version__

_SETTINGS: Final = {
    "TITLE": "realtime_runs",
    "DESCRIPTION": "Trigger runs, look at them, change them. Following them live is below `/realtime/`.",
    "VERSION": __version__,
    "PREPROCESSING_HOOKS": ["realtime_runs.wire.rest.schema.only_ours"],
}


def only_ours(endpoints: list[Any], **kwargs: Any) -> list[Any]:
    """A project may have views of its own, which it describes elsewhere."""
    return [one for one in endpoints if getattr(one[3].cls, "__module__", "").startswith("realtime_runs.")]


class BearerScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]  # registers itself
    target_class = "realtime_runs.wire.rest.base.PrincipalAuthentication"
    name = "bearer"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "description": "A secret key or a public token"}


class SchemaView(SpectacularAPIView):
    schema: Any = None  # does not describe itself
    authentication_classes = []
    permission_classes = []
    throttle_classes = []
    renderer_classes = [OpenApiJsonRenderer]
    generator_class = SchemaGenerator
    custom_settings = _SETTINGS

    def _get_version_parameter(self, request: Any) -> None:
        """There is one; what a query says would go into a header."""


class DocsView(SpectacularSwaggerView):
    schema: Any = None  # does not describe itself
    authentication_classes = []
    permission_classes = []
    throttle_classes = []
    url_name = "realtime_runs:schema"
