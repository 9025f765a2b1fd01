"""Large payloads: URLs to upload and fetch them, which carry their own permission for an hour (wire-protocol 12)."""

from datetime import timedelta
from typing import Any, ClassVar, Final

from django.core import signing
from django.http import HttpResponse
from django.urls import reverse
from drf_spectacular.utils import inline_serializer
from rest_framework import serializers
from rest_framework.exceptions import UnsupportedMediaType
from rest_framework.request import Request
from rest_framework.response import Response

from realtime_runs.access import rules
from realtime_runs.conf import app_settings
from realtime_runs.engine import stored_packets
from realtime_runs.exceptions import Forbidden, NotFound, RunNotFound
from realtime_runs.models import Run
from realtime_runs.packets import Packet
from realtime_runs.wire.rest.base import ApiView, described

_LIFE: Final = timedelta(hours=1)
_URL: Final = inline_serializer("PresignedUrl", {"presignedUrl": serializers.CharField()})


class SignedView(ApiView):
    """A route of a presigned URL: what is signed in it is all the permission that its caller needs."""

    authentication_classes = []
    schema = None
    route: ClassVar[str]  # the name in urls.py; what is signed for one route is nothing on another

    def authorize(self) -> None:
        try:
            signed = signing.TimestampSigner(salt=self._salt()).unsign(self.kwargs["signed"], max_age=_LIFE)
        except signing.BadSignature:
            raise Forbidden from None
        self.signed: str = signed

    @classmethod
    def url(cls, request: Request, what: str) -> str:
        return request.build_absolute_uri(cls.path(what))

    @classmethod
    def path(cls, what: str) -> str:
        signed = signing.TimestampSigner(salt=cls._salt()).sign(what)
        return reverse(f"realtime_runs:{cls.route}", args=[signed])

    @classmethod
    def _salt(cls) -> str:
        return f"realtime_runs.{cls.route}"


class UploadView(SignedView):
    route = "packet-upload"

    def put(self, request: Request, signed: str) -> HttpResponse:
        type_ = request._request.content_type or ""
        if type_ not in stored_packets.TYPES:
            raise UnsupportedMediaType(type_)
        stored_packets.save(self.signed, type_, self.raw_body(app_settings.MAX_PAYLOAD_BYTES))
        return HttpResponse(status=200)


class _Download(SignedView):
    is_open_to_pages = True

    def get(self, request: Request, signed: str) -> HttpResponse:
        packet = self.packet()
        # The client decodes by this type, so it must be exactly that of the packet, without a charset.
        text = (packet.text or "").encode()
        return HttpResponse(text, content_type=packet.type)

    def packet(self) -> Packet:
        raise NotImplementedError


class DownloadView(_Download):
    route = "packet-download"

    def packet(self) -> Packet:
        if not stored_packets.exists(self.signed):
            raise NotFound(self.signed)
        return stored_packets.read(self.signed)


class RunDownloadView(_Download):
    route = "run-packet-download"

    def packet(self) -> Packet:
        run_id, _, field = self.signed.partition(":")
        return _packet_of(_run(run_id), field)


class UploadUrlView(ApiView):
    def need(self) -> rules.Need:
        return rules.only_with_key("trigger")

    @described(
        summary="A URL to upload a large payload to",
        request=None,
        responses=inline_serializer(
            "PacketUpload", {"presignedUrl": serializers.CharField(), "storagePath": serializers.CharField()}
        ),
    )
    def put(self, request: Request, name: str) -> Response:
        """The name only says what the client thinks of; ours cannot be guessed."""
        path = stored_packets.new_name()
        return Response({"presignedUrl": UploadView.url(request, path), "storagePath": path})


class PacketView(ApiView):
    def need(self) -> rules.Need:
        return rules.only_with_key("read")

    @described(summary="A URL of an uploaded payload", responses=_URL)
    def get(self, request: Request, name: str) -> Response:
        if not stored_packets.exists(name):
            raise NotFound(name)
        return Response({"presignedUrl": DownloadView.url(request, name)})


class RunPacketView(ApiView):
    is_open_to_pages = True

    def need(self) -> rules.Need:
        self.run = _run(self.kwargs["run_id"])
        return rules.read_run(self.run)

    @described(summary="A URL of a run's payload or output", responses=_URL)
    def get(self, request: Request, run_id: str, field: str) -> Response:
        _packet_of(self.run, field)
        return Response({"presignedUrl": RunDownloadView.url(request, f"{run_id}:{field}")})


def _run(run_id: str) -> Run:
    run = Run.objects.find(run_id)
    if run is None:
        raise RunNotFound(run_id)
    return run


def _packet_of(run: Run, field: str) -> Packet:
    packets: dict[str, Any] = {"payload": run.payload_packet, "output": run.output_packet}
    packet: Packet | None = packets.get(field)
    if packet is None or packet.text is None:
        raise NotFound(field)
    return packet
