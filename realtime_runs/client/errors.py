"""From an answer to the error that the same call raises in a Django project: the inverse of `wire.errors`."""

import json
from typing import Any, Final

from realtime_runs import exceptions

# What a body names under `code`.
_BY_CODE: Final[dict[str, type[exceptions.RealtimeRunsError]]] = {
    kind.__name__: kind
    for kind in (
        exceptions.PayloadInvalid,
        exceptions.ChunkInvalid,
        exceptions.NotJson,
        exceptions.TooLarge,
        exceptions.InvalidOption,
        exceptions.InvalidTransition,
        exceptions.StreamClosed,
        exceptions.StreamGap,
    )
}


def error_of(status: int, content: bytes, missing: Exception | None = None) -> Exception:
    """`missing`: what a 404 means where it came from."""
    body = _body(content)
    message = body["error"] if isinstance(body.get("error"), str) else f"The server answered {status}."
    if status == 404 and missing is not None:
        return missing
    if status == 401:
        return exceptions.InvalidToken(message)
    if status == 403:
        return exceptions.Forbidden()
    if kind := _BY_CODE.get(str(body.get("code"))):
        return _made(kind, message, body)
    if status == 422 and "spent" in message:
        return exceptions.TokenSpent()
    if status in (400, 413, 415, 422):
        return exceptions.InvalidInput(message)
    return exceptions.ServerError(status, message)


def _body(content: bytes) -> dict[str, Any]:
    try:
        body = json.loads(content)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _made(kind: type[exceptions.RealtimeRunsError], message: str, body: dict[str, Any]) -> Exception:
    """Without its arguments, which do not travel; but its text, and the fields that are wrong."""
    error = kind.__new__(kind, message)
    Exception.__init__(error, message)
    if isinstance(error, exceptions.PayloadInvalid):
        details = body.get("details", [])
        error.errors = [{"loc": tuple(one["path"]), "msg": one["message"], "type": ""} for one in details]
    if isinstance(error, exceptions.StreamGap):
        error.first_index = body["firstIndex"]
    return error
