"""From options in our words to those of the wire."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from realtime_runs.exceptions import InvalidOption

_NAMES: Final = {
    "tags": "tags",
    "metadata": "metadata",
    "idempotency_key": "idempotencyKey",
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


def wire_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Raises TypeError for an unknown name, as any function does."""
    if unknown := options.keys() - _NAMES.keys():
        raise TypeError(f"trigger() got an unexpected option {min(unknown)!r}.")
    found = {_NAMES[name]: wire_value(value) for name, value in options.items()}
    if "queue" in found:
        found["queue"] = {"name": found["queue"]}
    if "tags" in found and not isinstance(found["tags"], str):
        found["tags"] = list(found["tags"])
    if isinstance(ttl := found.get("idempotencyKeyTTL"), int | float):
        found["idempotencyKeyTTL"] = f"{max(1, round(ttl))}s"
    return found


def wire_value(value: Any) -> Any:
    """A timedelta in seconds, a datetime in ISO 8601; the rest as it is. Raises InvalidOption for a naive datetime."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise InvalidOption(f"{value!r} has no time zone.")
        return value.isoformat()
    return value
