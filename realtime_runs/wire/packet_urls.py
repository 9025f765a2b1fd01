"""URLs of payloads and outputs that are too large for a frame (wire-protocol 12)."""

import time
from io import BytesIO
from typing import Any, Final

from django.core.exceptions import SuspiciousOperation
from django.core.handlers.asgi import ASGIRequest

from realtime_runs.wire.rest.packets import RunDownloadView

_FRESH_SECONDS: Final = 30 * 60  # half as long as they are good: one that is sent again is good for a while


class PacketUrls:
    """For the client of one request. `key`: those with an equal one get equal URLs."""

    def __init__(self, scope: Any) -> None:
        """`scope`: of an HTTP request."""
        self._request = ASGIRequest(scope, BytesIO())
        try:
            self._origin = f"{self._request.scheme}://{self._request.get_host()}"
        except SuspiciousOperation:  # a client with a token may call us what it likes
            self._origin = ""

    @property
    def key(self) -> tuple[str, int]:
        return self._origin, int(time.time() // _FRESH_SECONDS)

    def url(self, run_id: str, field: str) -> str:
        """Of the `payload` or `output` of a run, for who may read it; without an origin where that is unknown."""
        return self._origin + RunDownloadView.path(f"{run_id}:{field}")
