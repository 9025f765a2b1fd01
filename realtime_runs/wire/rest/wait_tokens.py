"""`/api/v1/waitpoints/tokens…`: wait tokens (wire-protocol 10)."""

import json
from typing import Any, Final

from django.urls import reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, inline_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from realtime_runs import wait
from realtime_runs.access import rules
from realtime_runs.access.keys import is_keyed_hash, keyed_hash
from realtime_runs.conf import app_settings
from realtime_runs.engine.wait_token_listing import filtered, list_tokens
from realtime_runs.exceptions import InvalidInput, InvalidToken
from realtime_runs.packets import JSON
from realtime_runs.wait import WaitToken, WaitTokenStatus
from realtime_runs.wire import body
from realtime_runs.wire.errors import QueryError
from realtime_runs.wire.minting import FOR_WAIT_TOKENS, token_headers
from realtime_runs.wire.rest import queries
from realtime_runs.wire.rest.base import ApiView, described
from realtime_runs.wire.rest.fields import AnyJson, DurationOrNumber, OneOrMore
from realtime_runs.wire.rest.schemas import PaginationSchema
from realtime_runs.wire.rest.triggering import Text
from realtime_runs.wire.run_object import iso

_PURPOSE: Final = "wait token"
_HASH_LENGTH: Final = 32
_TIMED_OUT: Final = json.dumps(
    {"code": "TRIGGER_WAITPOINT_TIMEOUT", "message": "The wait token timed out before it was completed."}
)


def callback_url(request: Request, token_id: str) -> str:
    """Absolute; whoever has it may complete the token by POST, with no other credential."""
    path = reverse("realtime_runs:complete-wait-token", args=[token_id, keyed_hash(_PURPOSE, token_id)[:_HASH_LENGTH]])
    return request.build_absolute_uri(path)


def token_object(request: Request, token: WaitToken) -> dict[str, Any]:
    """Without its output."""
    optional = {
        "timeoutAt": token.timeout_at,
        "completedAt": token.completed_at,
        "idempotencyKeyExpiresAt": token.idempotency_key_expires_at,
    }
    found: dict[str, Any] = {
        "id": token.id,
        "url": callback_url(request, token.id),
        "status": token.status.value,
        "tags": list(token.tags),
        "createdAt": iso(token.created_at),
        **{name: iso(when) for name, when in optional.items() if when is not None},
    }
    if token.idempotency_key:
        found["idempotencyKey"] = token.idempotency_key
    return found


def _output(token: WaitToken) -> dict[str, Any]:
    if token.is_timed_out:
        return {"output": _TIMED_OUT, "outputType": JSON, "outputIsError": True}
    if token.output_packet.text is None:
        return {}
    return {"output": token.output_packet.text, "outputType": token.output_packet.type, "outputIsError": False}


class CreateTokenRequest(serializers.Serializer[Any]):
    timeout = DurationOrNumber(required=False, help_text="A duration, or a time in ISO 8601; default 10m")
    tags = OneOrMore(required=False)
    idempotencyKey = Text(required=False)
    idempotencyKeyTTL = DurationOrNumber(required=False)


class TokenSchema(serializers.Serializer[Any]):
    id = serializers.CharField()
    url = serializers.CharField()
    status = serializers.CharField(help_text=", ".join(WaitTokenStatus.values))
    tags = serializers.ListField(child=serializers.CharField())
    createdAt = serializers.DateTimeField()
    timeoutAt = serializers.DateTimeField(required=False)
    completedAt = serializers.DateTimeField(required=False)
    idempotencyKey = serializers.CharField(required=False)
    idempotencyKeyExpiresAt = serializers.DateTimeField(required=False)


class WholeTokenSchema(TokenSchema):
    output = serializers.CharField(required=False)
    outputType = serializers.CharField(required=False)
    outputIsError = serializers.BooleanField(required=False)


class TokenListSchema(serializers.Serializer[Any]):
    data = TokenSchema(many=True)  # type: ignore[assignment]
    pagination = PaginationSchema()


class TokensView(ApiView):
    max_body = 10 * 1024

    def need(self) -> rules.Need:
        return rules.only_with_key("wait_tokens")

    @described(
        operation_id="create_wait_token",
        summary="Make a wait token",
        request=CreateTokenRequest,
        responses=inline_serializer(
            "CreatedToken",
            {"id": serializers.CharField(), "isCached": serializers.BooleanField(), "url": serializers.CharField()},
        ),
    )
    def post(self, request: Request) -> Response:
        wish = self.valid(CreateTokenRequest, may_be_empty=True)
        token = wait.create_token(
            timeout=wish.get("timeout"),
            tags=wish.get("tags", ()),
            idempotency_key=wish.get("idempotencyKey", ""),
            idempotency_key_ttl=wish.get("idempotencyKeyTTL"),
        )
        headers = token_headers(self.principal, [f"write:waitpoints:{token.id}"], FOR_WAIT_TOKENS)
        answer = {"id": token.id, "isCached": token.is_cached, "url": callback_url(request, token.id)}
        return Response(answer, headers=headers)

    @described(
        operation_id="list_wait_tokens",
        summary="A page of wait tokens, newest first",
        responses=TokenListSchema,
        parameters=[
            OpenApiParameter("page[size]", OpenApiTypes.INT),
            *(
                OpenApiParameter(name, OpenApiTypes.STR)
                for name in ("page[after]", "page[before]", "filter[status]", "filter[tags]", "filter[idempotencyKey]")
            ),
            *(OpenApiParameter(f"filter[createdAt][{name}]", OpenApiTypes.STR) for name in ("from", "to", "period")),
        ],
    )
    def get(self, request: Request) -> Response:
        query = request.GET
        status = queries.listed(query, "filter[status]")
        queries.refuse_unknown("filter[status]", status, WaitTokenStatus.values)
        try:
            found = filtered(
                status=status,
                tags=queries.listed(query, "filter[tags]"),
                idempotency_key=query.get("filter[idempotencyKey]"),
                **queries.created(query),
            )
            page = list_tokens(found, **queries.page_of(query), with_output=False)
        except QueryError:
            raise
        except InvalidInput as error:
            raise QueryError(query=str(error)) from None
        turns = {"next": page.next, "previous": page.previous}
        return Response(
            {
                "data": [token_object(request, token) for token in page.data],
                "pagination": {name: cursor for name, cursor in turns.items() if cursor},
            }
        )


class TokenView(ApiView):
    def need(self) -> rules.Need:
        return rules.only_with_key("wait_tokens")

    @described(summary="A wait token", responses=WholeTokenSchema)
    def get(self, request: Request, token_id: str) -> Response:
        token = wait.retrieve_token(token_id)
        return Response({**token_object(request, token), **_output(token)})


class CompleteTokenRequest(serializers.Serializer[Any]):
    data = AnyJson(required=False)  # type: ignore[assignment]


Success = inline_serializer("Success", {"success": serializers.BooleanField()})


def largest_data() -> int:
    most: int = app_settings.MAX_PAYLOAD_BYTES
    return most + 1024


class CompleteTokenView(ApiView):
    is_open_to_pages = True

    def need(self) -> rules.Need:
        return rules.complete_wait_token(self.kwargs["token_id"])

    @described(summary="Complete a wait token", request=CompleteTokenRequest, responses=Success)
    def post(self, request: Request, token_id: str) -> Response:
        wish = self.valid(CompleteTokenRequest, may_be_empty=True, limit=largest_data())
        wait.complete_token(token_id, wish.get("data"))
        return Response({"success": True})


class CallbackView(ApiView):
    """The URL is the credential."""

    authentication_classes = []

    def authorize(self) -> None:
        if not is_keyed_hash(self.kwargs["hash"], _PURPOSE, self.kwargs["token_id"], length=_HASH_LENGTH):
            raise InvalidToken("The address is not valid.")

    @described(summary="Complete a wait token by its address", request=OpenApiTypes.ANY, responses=Success, auth=[])
    def post(self, request: Request, token_id: str, hash: str) -> Response:
        sent = self.raw_body(largest_data())
        try:
            data = body.parse_json(sent)
        except InvalidInput:  # what any service may send (wire-protocol 10)
            data = {}
        wait.complete_token(token_id, data)
        return Response({"success": True})
