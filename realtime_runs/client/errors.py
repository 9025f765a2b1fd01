"""From an answer to the error that the same call raises in a Django project: the inverse of `wire.errors`."""

import json
from typing import Any, Final

from realtime_runs import exceptions
from realtime_runs.wire.codes import ATTRIBUTES, wire_name

_BY_CODE: Final = {kind.__name__: kind for kind in ATTRIBUTES}
_SPENT: Final = str(exceptions.TokenSpent())
_QUERY: Final = "Query Error: "


def error_of(status: int, content: bytes, missing: Exception | None = None) -> Exception:
    """`missing`: what a 404 means where it came from."""
    body = _body(content)
    said = body.get("error")
    message = said if isinstance(said, str) else f"The server answered {status}."
    if status == 404 and missing is not None:
        return missing
    if status == 401:
        return exceptions.InvalidToken(message)
    if status == 403:
        return exceptions.Forbidden()
    if kind := _BY_CODE.get(str(body.get("code"))):
        return _made(kind, message, body)
    if status == 422 and message == _SPENT:
        return exceptions.TokenSpent()
    if status == 413:
        return _made(exceptions.TooLarge, message, body)
    if message.startswith(_QUERY):
        return exceptions.InvalidOption(message.removeprefix(_QUERY))
    if status in (400, 415, 422):
        return exceptions.InvalidInput(message)
    return exceptions.ServerError(status, message)


def _body(content: bytes) -> dict[str, Any]:
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def _made(kind: type[exceptions.RealtimeRunsError], message: str, body: dict[str, Any]) -> Exception:
    """Not by its constructor, which would make the text anew from what the server knows."""
    error = kind.__new__(kind, message)
    for name in ATTRIBUTES[kind]:
        setattr(error, name, body.get(wire_name(name)))
    if isinstance(error, exceptions.PayloadInvalid):
        error.errors = [
            {"loc": tuple(one.get("path", ())), "msg": one.get("message", ""), "type": ""}
            for one in body.get("details", ())
        ]
    return error
