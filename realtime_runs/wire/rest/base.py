"""What all views of `api/` have in common: who asks, whether it may, what it sent, and how a refusal looks."""

from collections.abc import Callable
from typing import Any, ClassVar, TypeVar, cast

from django.http import HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import extend_schema
from rest_framework.authentication import BaseAuthentication
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer
from rest_framework.views import APIView, set_rollback

from realtime_runs.access.principals import Principal
from realtime_runs.access.rules import Need
from realtime_runs.wire import body, cors
from realtime_runs.wire.authentication import principal_of
from realtime_runs.wire.encoding import dumps
from realtime_runs.wire.errors import BodyTooLarge, refusal

F = TypeVar("F", bound=Callable[..., Any])


class WireRenderer(JSONRenderer):
    """JSON of any value that a run may hold."""

    def render(self, data: Any, accepted_media_type: str | None = None, renderer_context: Any = None) -> bytes:
        return b"" if data is None else dumps(data)


def described(**what: Any) -> Callable[[F], F]:
    """For a method of a view: what OpenAPI says of it, as for drf-spectacular's `extend_schema`, whatever schema class
    the project's DRF settings name.
    """

    def decorate(method: F) -> F:
        method.kwargs = {"schema": AutoSchema}  # type: ignore[attr-defined]  # where extend_schema looks for the class
        return extend_schema(**what)(method)

    return decorate


class PrincipalAuthentication(BaseAuthentication):
    """`request.auth` is the Principal; `request.user` is the user of the site, if it is one."""

    def authenticate(self, request: Request) -> tuple[Any, Principal]:
        principal = principal_of(request._request)
        return getattr(principal, "user", None), principal

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="realtime_runs"'  # without one, DRF answers 403 where nobody has a credential


class ApiView(APIView):
    """A route of the wire protocol. It is closed: `need` must say what its caller must be allowed to do.

    `is_open_to_pages`: may be called by pages of other origins (wire-protocol 1.8). `max_body`: bytes. Throttles are
    those of DRF's settings (DEFAULT_THROTTLE_CLASSES).
    """

    authentication_classes = [PrincipalAuthentication]
    permission_classes = []  # `need` decides
    renderer_classes = [WireRenderer]
    parser_classes = []  # `valid` and `raw_body` read it: content types say little here
    schema: Any = AutoSchema()  # whatever the project's DRF settings say
    is_open_to_pages: ClassVar[bool] = False
    max_body: ClassVar[int] = 64 * 1024

    def need(self) -> Need:
        """What the caller must be allowed to do. May look at `self.kwargs`, and load what is asked for."""
        raise NotImplementedError

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        self.principal = cast(Principal, request.auth)
        if not hasattr(self, (request.method or "").lower()):
            self.http_method_not_allowed(request)  # before `need` looks into a body that is none
        self.authorize()

    def perform_content_negotiation(self, request: Request, force: bool = False) -> tuple[Any, str]:
        """JSON, whatever `Accept` or a parameter `format` says."""
        renderer = self.get_renderers()[0]
        return renderer, renderer.media_type or ""

    def authorize(self) -> None:
        self.principal.check(self.need())

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.method == "OPTIONS" and self.is_open_to_pages:
            asked = request.headers.get("Access-Control-Request-Headers", "")
            return HttpResponse(status=204, headers=cors.preflight_headers(asked))
        return super().dispatch(request, *args, **kwargs)

    def handle_exception(self, exc: Exception) -> Response:
        refused = refusal(exc)
        headers = dict(refused.headers)
        if refused.status == 401:
            headers["WWW-Authenticate"] = 'Bearer realm="realtime_runs"'
        elif refused.status == 405:
            headers["Allow"] = ", ".join(self.allowed_methods)
        set_rollback()  # of a project with ATOMIC_REQUESTS
        return Response(refused.body, refused.status, headers=headers)

    def finalize_response(self, request: Any, response: Any, *args: Any, **kwargs: Any) -> Any:
        response = super().finalize_response(request, response, *args, **kwargs)
        response["Cache-Control"] = "no-store"
        response["X-Content-Type-Options"] = "nosniff"
        if self.is_open_to_pages:
            for name, value in cors.ANSWER_HEADERS.items():
                response[name] = value
        return response

    # -- what was sent ------------------------------------------------------------------------------------------------

    def raw_body(self, limit: int | None = None) -> bytes:
        """All of it, also of a request in chunks, which DRF takes for empty. Raises BodyTooLarge."""
        most = self.max_body if limit is None else limit
        body.check_length(self.request.META.get("CONTENT_LENGTH") or "", most)
        if not hasattr(self, "_raw_body"):
            self._raw_body: bytes = self.request._request.read(most + 1)  # once: what needs it may ask again
        if len(self._raw_body) > most:
            raise BodyTooLarge(most)
        return self._raw_body

    def valid(
        self, serializer: type[BaseSerializer[Any]], *, may_be_empty: bool = False, limit: int | None = None
    ) -> dict[str, Any]:
        """The JSON object that was sent, checked. Raises InvalidInput, or DRF's ValidationError."""
        checked = serializer(data=body.parse_object(self.raw_body(limit), may_be_empty=may_be_empty))
        checked.is_valid(raise_exception=True)
        data: dict[str, Any] = checked.validated_data
        return data


class NotFoundView(APIView):
    """Any other path below `api/`."""

    authentication_classes = []
    permission_classes = []
    renderer_classes = [JSONRenderer]
    schema = None

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> HttpResponseBase:
        return JsonResponse({"error": "Not found"}, status=404, headers=cors.ANSWER_HEADERS)
