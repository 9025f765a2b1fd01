"""Why a socket is closed, and why a subscription of it ends: the one table of close codes (live-protocol 1)."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from django.core.exceptions import SuspiciousOperation
from rest_framework.exceptions import PermissionDenied

from realtime_runs import exceptions as ours
from realtime_runs.wire.errors import refusal


class CloseCode(IntEnum):
    """44xx: stop, unless said otherwise. Everything else: come back."""

    GOING_AWAY = 1012
    BAD_FRAME = 4400
    INVALID_TOKEN = 4401  # get a new one, then come back
    FORBIDDEN = 4403
    NO_SUBPROTOCOL = 4406
    FRAME_TOO_BIG = 4413
    TOO_MANY = 4429  # come back later
    OUR_ERROR = 4500
    NO_PONG = 4508

    @property
    def reason(self) -> str:
        """For people; the same for everybody, so that it tells a stranger nothing."""
        return self.name.lower().replace("_", " ")


class SocketClosed(Exception):
    """The socket is to be closed with this code."""

    def __init__(self, code: CloseCode) -> None:
        self.code = code
        super().__init__(code.reason)


class FrameTooLarge(Exception):
    """What cannot be split is larger than a frame can be."""


@dataclass(frozen=True, slots=True)
class SocketError:
    """The answer to a frame that was refused: it ends this id only. `retry`: the same may work later."""

    code: str
    message: str
    retry: bool = False

    @property
    def fields(self) -> dict[str, Any]:
        return {"code": self.code, "message": self.message, "retry": self.retry}


NOT_FOUND: Final = SocketError("not_found", "Not found")
FORBIDDEN: Final = SocketError("forbidden", "Unauthorized")
TOO_MANY: Final = SocketError("too_many", "Too many at once on this socket", retry=True)
TOO_LARGE: Final = SocketError("too_large", "Too large for a frame; read it over HTTP")

# The first class that fits decides.
_CODES: Final[list[tuple[type[Exception], CloseCode]]] = [
    (ours.InvalidToken, CloseCode.INVALID_TOKEN),
    (ours.AccessDenied, CloseCode.FORBIDDEN),
    (PermissionDenied, CloseCode.FORBIDDEN),
    (SuspiciousOperation, CloseCode.FORBIDDEN),
    (ours.InvalidInput, CloseCode.BAD_FRAME),
]


def close_code(error: Exception) -> CloseCode:
    """With which code an error closes a socket. One that nobody foresaw is logged."""
    if isinstance(error, SocketClosed):
        return error.code
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    refusal(error)
    return CloseCode.OUR_ERROR


def socket_error(error: Exception) -> SocketError:
    """What an error says to the one subscription or `send` that it ends. One that nobody foresaw is logged."""
    if isinstance(error, ours.NotFound):
        return NOT_FOUND
    if isinstance(error, ours.AccessDenied):
        return FORBIDDEN
    if isinstance(error, FrameTooLarge):
        return TOO_LARGE
    if isinstance(error, ours.StreamClosed):
        return SocketError("closed", str(error))
    if isinstance(error, ours.TooLarge):
        return SocketError("too_large", str(error))
    if isinstance(error, ours.InvalidInput):
        return SocketError("invalid", str(error))
    return SocketError("internal", str(refusal(error).body["error"]), retry=True)
