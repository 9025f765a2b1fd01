"""Request bodies: bounded, and JSON that every part of the system can hold."""

from typing import Any

from realtime_runs import packets
from realtime_runs.exceptions import InvalidInput, NotJson
from realtime_runs.wire.errors import BodyTooLarge


def check_length(content_length: str, limit: int) -> None:
    """Refuse a body by what its header says, before it is read. Raises BodyTooLarge."""
    is_number = content_length.isascii() and content_length.isdigit()
    if is_number and (len(content_length) > 15 or int(content_length) > limit):
        raise BodyTooLarge(limit)


def parse_json(data: bytes) -> Any:
    """The value of a body, whatever its content type says. Raises InvalidInput: no NaN, NUL, lone surrogates, or more
    nesting than MAX_JSON_DEPTH.
    """
    if not data.strip():
        raise InvalidInput("Request body is empty")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise InvalidInput("Invalid JSON: the body is not UTF-8") from None
    try:
        return packets.parse(text, "The body")
    except NotJson as error:
        raise InvalidInput(f"Invalid JSON: {error}") from None


def parse_object(data: bytes, *, may_be_empty: bool = False) -> dict[str, Any]:
    """The same where a JSON object is needed; an empty body is an empty one if it may be."""
    if may_be_empty and not data.strip():
        return {}
    value = parse_json(data)
    if not isinstance(value, dict):
        raise InvalidInput("The body must be a JSON object")
    return value
