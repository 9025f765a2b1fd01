"""What a caller gets when something is refused: the one table of errors and HTTP statuses (wire-protocol 1.4)."""

import logging
from dataclasses import dataclass, field, replace
from typing import Any, Final

from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.http import Http404
from rest_framework import exceptions as drf

from realtime_runs import exceptions as ours
from realtime_runs.wire.codes import ATTRIBUTES, wire_name

logger = logging.getLogger("realtime_runs.wire")


@dataclass(frozen=True, slots=True)
class Refusal:
    """The answer to a request that was refused. `body` is a JSON object with a text under `error`."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)


class QueryError(ours.InvalidInput):
    """A path or query parameter is invalid. `details`: one dict for each, with `path` and `message`."""

    def __init__(self, **problems: str) -> None:
        self.details = [{"path": [name], "message": message} for name, message in problems.items()]
        super().__init__("; ".join(f"{name}: {message}" for name, message in problems.items()))


class BodyTooLarge(ours.RealtimeRunsError):
    """The request's body is larger than the route takes."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"Request body too large; at most {limit:,} bytes are allowed")


# The first class that fits decides, so the special ones come first.
_STATUSES: Final[list[tuple[type[Exception], int]]] = [
    (ours.InvalidToken, 401),
    (ours.Forbidden, 403),
    (ours.TokenSpent, 422),
    (ours.NotFound, 404),
    (BodyTooLarge, 413),
    (ours.PayloadInvalid, 422),
    (ours.ParentNotFound, 422),
    (ours.RunStopped, 422),
    (ours.BatchItemInvalid, 422),
    (ours.BatchMissing, 422),
    (ours.InvalidTransition, 422),
    (ours.StreamGap, 410),
    (ours.StreamClosed, 400),  # not 409 or 410: the official client would try again, or take it for something else
    (ours.InvalidInput, 400),
]

# Of these texts clients know the exact form.
_NOT_FOUND: Final = {"error": "Not found"}
_FORBIDDEN: Final = {
    "error": "Unauthorized",
    "code": "unauthorized",
    "param": "access_token",
    "type": "authorization",
}
_UNEXPECTED: Final = {"error": "Internal Server Error"}


def refusal(error: Exception) -> Refusal:
    """What is answered for this error."""
    refused = _refusal(error)
    if not isinstance(error, ours.RealtimeRunsError) or type(error) not in ATTRIBUTES:
        return refused
    said = {wire_name(name): getattr(error, name) for name in ATTRIBUTES[type(error)]}
    return replace(refused, body={**refused.body, "code": type(error).__name__, **said})


def _refusal(error: Exception) -> Refusal:
    """What is answered for this error. One that nobody foresaw is logged, and tells the caller nothing."""
    if isinstance(error, ours.Forbidden):
        return Refusal(403, _FORBIDDEN)
    if isinstance(error, QueryError):
        return Refusal(400, {"error": f"Query Error: {error}", "details": error.details})
    if isinstance(error, ours.UnknownTask):
        return Refusal(404, {"error": f"Task {error.id!r} not found"})  # which ones there are is not for strangers
    if isinstance(error, ours.NotFound | Http404):
        return Refusal(404, _NOT_FOUND)
    if isinstance(error, ours.TooLarge):
        return Refusal(413 if error.unit == "bytes" else 422, {"error": str(error)})
    if isinstance(error, ours.PayloadInvalid):
        details = [{"path": [*problem["loc"]], "message": problem["msg"]} for problem in error.errors]
        return Refusal(422, {"error": str(error), "details": details})
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            return Refusal(status, {"error": str(error)})
    if isinstance(error, PermissionDenied):
        return Refusal(403, {"error": str(error) or "Forbidden"})
    if isinstance(error, SuspiciousOperation):  # a Host that is not ours, a form that is too large, …
        return Refusal(400, {"error": "Bad request"})
    if isinstance(error, drf.APIException):
        return _of_framework(error)
    logger.error("A request failed unexpectedly", exc_info=error)
    return Refusal(500, _UNEXPECTED)


def _of_framework(error: drf.APIException) -> Refusal:
    if isinstance(error, drf.ValidationError):
        details = [{"path": path, "message": message} for path, message in _problems(error.detail)]
        text = "; ".join(f"{'.'.join(map(str, one['path'])) or 'body'}: {one['message']}" for one in details)
        return Refusal(400, {"error": text, "details": details})
    if isinstance(error, drf.MethodNotAllowed):
        return Refusal(405, {"error": "Method not allowed"})
    if isinstance(error, drf.Throttled):
        seconds = getattr(error, "wait", None)
        wait = 1 if seconds is None else max(1, int(seconds))  # a whole number already
        return Refusal(429, {"error": "Rate limit exceeded"}, {"Retry-After": str(wait)})
    return Refusal(error.status_code, {"error": str(error.detail)})


def _problems(detail: Any, path: tuple[str | int, ...] = ()) -> list[tuple[list[str | int], str]]:
    if isinstance(detail, dict):
        items = [(key, value) for key, value in detail.items()]
        return [
            found
            for key, value in items
            for found in _problems(value, path if key == "non_field_errors" else (*path, key))
        ]
    if isinstance(detail, list):
        # A list of messages, or of one entry for each item of a list that was sent.
        return [
            found
            for index, value in enumerate(detail)
            for found in _problems(value, (*path, index) if isinstance(value, dict | list) else path)
        ]
    return [([*path], str(detail))]
