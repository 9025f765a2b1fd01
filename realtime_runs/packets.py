"""Payloads and outputs at rest: a text and its type, kept verbatim (wire-protocol 1.7), and what JSON we accept.

JSON is written by the standard library, not by orjson, because only that refuses NaN and keeps integers of any size.
Input may hold nothing that one of our databases cannot store: no NUL and no lone surrogate. Values that come from a
running task are kept in escaped form instead: an odd character must not turn a finished run into a failed one.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from pydantic_core import PydanticSerializationError, to_jsonable_python

from realtime_runs.conf import app_settings
from realtime_runs.exceptions import NotJson, TooLarge

JSON: Final = "application/json"
SUPER_JSON: Final = "application/super+json"
PLAIN_TEXT: Final = "text/plain"


@dataclass(frozen=True, slots=True)
class Packet:
    """A text and its type. `text` is None when there is no value at all, which is not the value null."""

    text: str | None
    type: str = JSON

    @property
    def size(self) -> int:
        return len(self.text.encode(errors="surrogatepass")) if self.text else 0


NOTHING: Final = Packet(None)


def encode(value: Any, what: str) -> str:
    """JSON text of a value that somebody gave us. Raises NotJson, which starts with `what`.

    Takes what JSON has, and what pydantic can serialise: models, dataclasses, Decimal, UUID, datetime, sets.
    """
    text = _dump(value, what)
    if "\\u0000" in text and _has(json.loads(text), lambda s: "\0" in s):
        raise NotJson(f"{what} contains the character U+0000, which PostgreSQL cannot store.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise NotJson(f"{what} contains a lone surrogate, which is no character (at {error.start}).") from None
    return text


def encode_result(value: Any, what: str) -> str:
    """JSON text of a value that a task made: like `encode`, but odd characters are kept, escaped."""
    text = _dump(value, what)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = _dump(value, what, ensure_ascii=True)
    return text


def _dump(value: Any, what: str, *, ensure_ascii: bool = False) -> str:
    try:
        text = json.dumps(
            value, ensure_ascii=ensure_ascii, allow_nan=False, separators=(",", ":"), default=to_jsonable_python
        )
    except RecursionError:
        raise NotJson(f"{what} is nested too deeply.") from None
    except (TypeError, ValueError, PydanticSerializationError) as error:
        raise NotJson(f"{what} is not JSON: {error}") from None
    check_depth(text, what)
    return text


def parse(text: str, what: str) -> Any:
    """The value of a JSON text from outside. Raises NotJson for what `encode` would refuse."""
    value = parse_result(text, what)
    encode(value, what)
    return value


def parse_result(text: str, what: str) -> Any:
    """The value of a JSON text that a task made elsewhere. Raises NotJson for what `encode_result` would refuse."""
    try:
        check_depth(text, what)
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise NotJson(f"{what} is nested too deeply.") from None
    except ValueError as error:
        raise NotJson(f"{what} is not JSON: {error}") from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def check_depth(text: str, what: str) -> None:
    """Bound the nesting, because a text that one process can write must be one that every reader can parse.

    Counting brackets is fast and may only be too high, so the slow walk is for texts that have many of them.
    """
    limit: int = app_settings.MAX_JSON_DEPTH
    if text.count("[") + text.count("{") <= limit:
        return
    depth = deepest = 0
    in_string = escaped = False
    for character in text:
        if in_string:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                in_string = False
        elif character == '"':
            in_string = True
        elif character in "[{":
            depth += 1
            deepest = max(deepest, depth)
            if deepest > limit:
                raise NotJson(f"{what} is nested more than {limit} levels deep (MAX_JSON_DEPTH).")
        elif character in "]}":
            depth -= 1


def _has(value: Any, predicate: Callable[[str], bool]) -> bool:
    """Whether a text anywhere in the value fulfils the predicate. Only called for values that went through JSON."""
    if isinstance(value, str):
        return predicate(value)
    if isinstance(value, dict):
        return any(_has(key, predicate) or _has(item, predicate) for key, item in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return any(_has(item, predicate) for item in value)
    if value is None or isinstance(value, bool | int | float):
        return False
    return _has(to_jsonable_python(value), predicate)


def check_text(text: str, what: str) -> None:
    """Raise NotJson for a text that not every database can store."""
    if "\0" in text:
        raise NotJson(f"{what} contains the character U+0000, which PostgreSQL cannot store.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise NotJson(f"{what} contains a lone surrogate, which is no character.") from None


def pack_payload(value: Any) -> Packet:
    """The packet of a payload given in Python. Raises NotJson, or TooLarge above MAX_PAYLOAD_BYTES (UTF-8)."""
    packet = Packet(encode(value, "payload"))
    check_size(packet, "payload", "MAX_PAYLOAD_BYTES")
    return packet


def check_payload(packet: Packet) -> Any:
    """Check a payload packet from outside and return its value. Raises NotJson or TooLarge; the text stays as it is."""
    check_size(packet, "payload", "MAX_PAYLOAD_BYTES")
    if packet.text is None:
        return None
    check_text(packet.text, "payload")
    if packet.type == PLAIN_TEXT:
        return packet.text
    parse(packet.text, "payload")
    return unpack(packet)


def pack_output(value: Any) -> Packet:
    """The packet of a task's output. Raises NotJson, or TooLarge above MAX_OUTPUT_BYTES (UTF-8)."""
    packet = Packet(encode_result(value, "output"))
    check_size(packet, "output", "MAX_OUTPUT_BYTES")
    return packet


def check_size(packet: Packet, what: str, setting: str) -> None:
    limit: int = getattr(app_settings, setting)
    if packet.size > limit:
        raise TooLarge(what, packet.size, limit, setting)


def unpack(packet: Packet) -> Any:
    """The plain JSON value of a stored packet; None when there is none."""
    if packet.text is None:
        return None
    if packet.type == PLAIN_TEXT:
        return packet.text
    value = json.loads(packet.text)
    if packet.type == SUPER_JSON and isinstance(value, dict):
        return value.get("json")
    return value
