"""`POST /api/v1/tasks/{task}/trigger`, and the wishes for runs that batches have too (wire-protocol 4.1)."""

import re
from typing import Any, Final, cast

from drf_spectacular.utils import inline_serializer
from rest_framework import serializers
from rest_framework.request import Request as HttpRequest
from rest_framework.response import Response

from realtime_runs import packets
from realtime_runs.access import rules
from realtime_runs.access.principals import Principal
from realtime_runs.conf import app_settings
from realtime_runs.engine import stored_packets, triggering
from realtime_runs.engine.options import TriggerOptions
from realtime_runs.exceptions import InvalidInput
from realtime_runs.models import Run
from realtime_runs.packets import JSON, NOTHING, SUPER_JSON, Packet
from realtime_runs.wire.minting import run_token_headers
from realtime_runs.wire.repeats import Made, make_once
from realtime_runs.wire.rest.base import ApiView, described
from realtime_runs.wire.rest.fields import AnyJson, DurationOrNumber, OneOrMore


def largest_trigger() -> int:
    """Bytes of the largest body of one run: its payload and metadata are mostly JSON texts in JSON, where quotes take
    two.
    """
    texts: int = app_settings.MAX_PAYLOAD_BYTES + app_settings.MAX_METADATA_BYTES
    return 2 * texts + 64 * 1024


class Text(serializers.CharField):
    """As it was sent, with spaces around it."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(trim_whitespace=False, allow_blank=True, **kwargs)


class KeyOptions(serializers.Serializer[Any]):
    key = Text(help_text="What the user wrote")
    scope = serializers.ChoiceField(["run", "attempt", "global"], required=False)


class QueueOptions(serializers.Serializer[Any]):
    name = Text(required=False)


class ItemOptions(serializers.Serializer[Any]):
    """What means nothing here is accepted all the same."""

    payloadType = serializers.ChoiceField([*stored_packets.TYPES, stored_packets.STORED], required=False, default=JSON)
    payloadSize = serializers.IntegerField(min_value=0, required=False, help_text="Ignored")
    tags = OneOrMore(required=False)
    metadata = AnyJson(required=False, help_text="An object, or its JSON text")
    metadataType = serializers.ChoiceField([JSON, SUPER_JSON], required=False, default=JSON)
    idempotencyKey = Text(required=False)
    idempotencyKeyTTL = serializers.RegexField(re.compile(r"\A[0-9]+[smhd]\Z"), required=False, help_text="Default 30d")
    idempotencyKeyOptions = KeyOptions(required=False)
    delay = DurationOrNumber(required=False, help_text="A duration, or a time in ISO 8601")
    ttl = DurationOrNumber(required=False, help_text="A duration, or seconds")
    queue = QueueOptions(required=False)
    concurrencyKey = Text(required=False)
    concurrency = AnyJson(required=False, help_text="Ignored")
    gates = AnyJson(required=False, help_text="Ignored")
    priority = DurationOrNumber(required=False, help_text="Seconds of head start")
    maxAttempts = serializers.IntegerField(required=False)
    maxDuration = DurationOrNumber(required=False, help_text="Seconds")
    machine = AnyJson(required=False, help_text="Ignored")
    region = AnyJson(required=False, help_text="Ignored")
    lockToVersion = AnyJson(required=False, help_text="Ignored")
    externalDeploymentId = AnyJson(required=False, help_text="Ignored")
    bulkActionId = AnyJson(required=False, help_text="Ignored")
    debounce = AnyJson(required=False, help_text="Ignored")
    test = serializers.BooleanField(required=False)


class Parented(serializers.Serializer[Any]):
    parentRunId = Text(required=False)
    resumeParentOnCompletion = serializers.BooleanField(required=False, help_text="Ignored")


class RunOptions(ItemOptions, Parented):
    pass


class TriggerRequest(serializers.Serializer[Any]):
    payload = AnyJson(required=False)
    options = RunOptions(required=False)


_NAMES: Final = {
    "tags": "tags",
    "idempotencyKey": "idempotency_key",
    "idempotencyKeyTTL": "idempotency_key_ttl",
    "delay": "delay",
    "ttl": "ttl",
    "concurrencyKey": "concurrency_key",
    "priority": "priority",
    "maxAttempts": "max_attempts",
    "maxDuration": "max_duration",
    "test": "is_test",
}


def options_of(wish: dict[str, Any]) -> TriggerOptions:
    """The options of a wish that a serializer has checked, in our words. Raises InvalidInput."""
    given = wish.get("options", {})
    found = {ours: given[theirs] for theirs, ours in _NAMES.items() if theirs in given}
    if (metadata := given.get("metadata")) is not None:
        found["metadata"] = _metadata(metadata, given["metadataType"])
    if written := given.get("idempotencyKeyOptions"):
        found["idempotency_key_as_written"] = written["key"]
    if queue := given.get("queue", {}).get("name"):
        found["queue"] = queue
    return cast(TriggerOptions, found)


def _metadata(value: Any, type_: str) -> Any:
    if not isinstance(value, str):
        return value
    packets.parse(value, "metadata")
    return packets.unpack(Packet(value, type_))


def packet_of(wish: dict[str, Any]) -> Packet:
    """Its payload: the text verbatim; the JSON text of what is no text. Raises InvalidInput."""
    if "payload" not in wish:
        return NOTHING
    payload, type_ = wish["payload"], wish.get("options", {}).get("payloadType", JSON)
    if isinstance(payload, str):
        return Packet(payload, type_)
    if type_ == stored_packets.STORED:
        raise InvalidInput("payload: expected a storage path.")
    return Packet(packets.encode(payload, "payload"), JSON)


def parent_of(wish: dict[str, Any], principal: Principal) -> str:
    """The run whose child is wished for, or "". Raises Forbidden where the caller may not read it; that there is none
    is for the domain to say.
    """
    parent_id: str = wish.get("parentRunId", "")
    if parent_id:
        principal.check(rules.make_child(parent_id, Run.objects.without_packets().find(parent_id)))
    return parent_id


class TriggerView(ApiView):
    is_open_to_pages = True

    def need(self) -> rules.Need:
        return rules.trigger(self.kwargs["task_id"])

    @described(
        summary="Trigger a run",
        request=TriggerRequest,
        responses=inline_serializer(
            "Triggered", {"id": serializers.CharField(), "isCached": serializers.BooleanField()}
        ),
    )
    def post(self, request: HttpRequest, task_id: str) -> Response:
        wish = self.valid(TriggerRequest, limit=largest_trigger())
        options: Any = {**options_of(wish), **_header_options(request)}
        parent_id = parent_of(wish.get("options", {}), self.principal)

        def make() -> Made:
            payload = stored_packets.inlined(packet_of(wish))
            handle = triggering.trigger(triggering.Request.check(task_id, payload, options), parent_id=parent_id)
            return Made(handle.id, handle.is_cached)

        run = make_once(request._request, self.principal, f"trigger {task_id}", make)
        headers = run_token_headers(self.principal, run.id)
        return Response({"id": run.id, "isCached": run.is_cached}, headers=headers)


def _header_options(request: HttpRequest) -> dict[str, str]:
    """Of other clients than the official one: these win over the body."""
    names = {"Idempotency-Key": "idempotency_key", "Idempotency-Key-TTL": "idempotency_key_ttl"}
    found = {ours: request.headers[theirs] for theirs, ours in names.items() if theirs in request.headers}
    return found | ({"idempotency_key_as_written": ""} if "idempotency_key" in found else {})
