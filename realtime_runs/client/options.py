"""From options and values in our words to those of the wire."""

import json
import math
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic_core import PydanticSerializationError, to_jsonable_python

from realtime_runs.durations import Duration, parse_duration
from realtime_runs.exceptions import InvalidOption, NotJson

_NAMES: Final = {
    "tags": "tags",
    "metadata": "metadata",
    "idempotency_key": "idempotencyKey",
    "idempotency_key_as_written": "idempotencyKeyOptions",
    "idempotency_key_ttl": "idempotencyKeyTTL",
    "delay": "delay",
    "ttl": "ttl",
    "queue": "queue",
    "concurrency_key": "concurrencyKey",
    "priority": "priority",
    "max_attempts": "maxAttempts",
    "max_duration": "maxDuration",
    "is_test": "test",
}


def wire_options(options: Mapping[str, Any], payload: Any = None) -> dict[str, Any]:
    """`options`, and where there is one a `payload`, both for the body of a request.

    Raises TypeError for an unknown name, as any function does; InvalidOption or NotJson.
    """
    if unknown := options.keys() - _NAMES.keys():
        raise TypeError(f"trigger() got an unexpected option {min(unknown)!r}.")
    found = {_NAMES[name]: wire_value(value) for name, value in options.items()}
    if "queue" in found:
        found["queue"] = {"name": found["queue"]}
    if "idempotencyKeyOptions" in found:
        found["idempotencyKeyOptions"] = {"key": found["idempotencyKeyOptions"]}
    if "tags" in found:
        found["tags"] = several(found["tags"])
    if "idempotency_key_ttl" in options:
        found["idempotencyKeyTTL"] = whole_seconds(options["idempotency_key_ttl"], "idempotency_key_ttl")
    if payload is None:
        return {"options": found}
    return {"options": found, "payload": json_text(payload, "payload")}  # a text without a type is JSON


def wire_value(value: Any) -> Any:
    """A timedelta in seconds, a datetime in ISO 8601; the rest as it is. Raises InvalidOption for a naive datetime."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise InvalidOption(f"{value!r} has no time zone.")
        return value.isoformat()
    return value


def whole_seconds(duration: Duration, what: str) -> str:
    """For fields that take one number and one unit."""
    return f"{math.ceil(parse_duration(duration, what).total_seconds())}s"


def several(value: str | Iterable[str]) -> list[str]:
    """Of what takes one text or some."""
    return [value] if isinstance(value, str) else [*value]


def json_text(value: Any, what: str) -> str:
    """JSON of what JSON has and what pydantic can serialise, as for the namespaces. Raises NotJson."""
    try:
        text = _dump(value)
    except RecursionError:
        raise NotJson(f"{what} is nested too deeply.") from None
    except (TypeError, ValueError, PydanticSerializationError) as error:
        raise NotJson(f"{what} is not JSON: {error}") from None
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate travels escaped; whether it may be stored is for the server to say
        return _dump(value, ensure_ascii=True)
    return text


def _dump(value: Any, *, ensure_ascii: bool = False) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, allow_nan=False, separators=(",", ":"), default=to_jsonable_python
    )
