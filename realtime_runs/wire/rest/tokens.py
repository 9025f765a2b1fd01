"""`POST /api/v1/auth/…`: what a client needs to make public tokens (wire-protocol 2.2)."""

import time
from datetime import timedelta
from typing import Any

from drf_spectacular.utils import inline_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from realtime_runs.access import rules, tokens
from realtime_runs.access.scopes import MOST_SCOPES, check_scopes
from realtime_runs.durations import parse_duration
from realtime_runs.wire.rest.base import ApiView, described
from realtime_runs.wire.rest.fields import DurationOrNumber


class ClaimsView(ApiView):
    def need(self) -> rules.Need:
        return rules.only_with_key("tokens")

    @described(
        summary="Claims for a public token that the caller signs itself",
        request=None,
        responses=inline_serializer("Claims", {"sub": serializers.CharField(), "pub": serializers.BooleanField()}),
    )
    def post(self, request: Request) -> Response:
        return Response(tokens.claims_of())


class RealtimeOptions(serializers.Serializer[Any]):
    skipColumns = serializers.ListField(child=serializers.CharField(max_length=64), max_length=50, required=False)


class PublicTokenRequest(serializers.Serializer[Any]):
    scopes = serializers.ListField(child=serializers.CharField(max_length=512), min_length=1, max_length=MOST_SCOPES)
    expirationTime = DurationOrNumber(required=False, help_text="`15m`, or seconds since 1970; default 15m")
    oneTimeUse = serializers.BooleanField(required=False)
    realtime = RealtimeOptions(required=False)


class PublicTokenView(ApiView):
    def need(self) -> rules.Need:
        return rules.only_with_key("tokens")

    @described(
        summary="A public token that the server signs",
        request=PublicTokenRequest,
        responses=inline_serializer("PublicToken", {"token": serializers.CharField()}),
    )
    def post(self, request: Request) -> Response:
        wish = self.valid(PublicTokenRequest)
        check_scopes(wish["scopes"])
        token = tokens.sign(
            wish["scopes"],
            life=_life(wish.get("expirationTime", "15m")),
            is_single_use=wish.get("oneTimeUse"),
            skip_columns=wish.get("realtime", {}).get("skipColumns", ()),
        )
        return Response({"token": token})


def _life(wanted: str | float) -> timedelta:
    """A number is a time, in seconds since 1970; a text is a duration."""
    if isinstance(wanted, str):
        return parse_duration(wanted, "expirationTime")
    return timedelta(seconds=wanted - time.time())
