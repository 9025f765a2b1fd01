"""Durations as users write them (wire-protocol 1.10): seconds, `timedelta`, or text: `90`, `10m`, `1h30m`, `2 days`."""

import math
import re
from datetime import datetime, timedelta
from functools import lru_cache

from django.utils import timezone
from django.utils.dateparse import parse_datetime
from pytimeparse2 import parse

from realtime_runs.exceptions import InvalidOption

type_error = "must be seconds, a timedelta or text such as '1h30m'"
LONGEST = timedelta(days=366 * 100)
_DATE = re.compile(r"\d{4}-\d\d-\d\d")

Duration = float | timedelta | str


def parse_duration(value: Duration, what: str = "duration") -> timedelta:
    """A positive or zero timedelta of at most 100 years. Raises InvalidOption, which names `what`."""
    seconds: float | None = None
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, str):
        # Short, so that a hostile text cannot make the parser work for long.
        seconds = _parse(value) if len(value) <= 64 else None
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value) if abs(value) < 1e12 else math.inf
    if seconds is None or not math.isfinite(seconds):
        raise InvalidOption(f"{what} {value!r} {type_error}.")
    if seconds < 0:
        raise InvalidOption(f"{what} {value!r} is negative.")
    if seconds > LONGEST.total_seconds():
        raise InvalidOption(f"{what} {value!r} is longer than 100 years.")
    return timedelta(seconds=seconds)


@lru_cache(maxsize=256)
def _parse(text: str) -> float | None:
    parsed = parse(text)
    return float(parsed) if isinstance(parsed, int | float) else None


def parse_when(value: Duration | datetime, what: str = "delay") -> timedelta:
    """How long from now: like `parse_duration`, but also an aware datetime, or one in ISO 8601; one in the past is now.

    Raises InvalidOption, also for a naive datetime, which means different instants in different places.
    """
    if isinstance(value, str) and _DATE.match(value):
        value = _parse_iso(value, what)
    if isinstance(value, datetime):
        if timezone.is_naive(value):
            raise InvalidOption(f"{what} {value!r} has no time zone.")
        return parse_duration(max(value - timezone.now(), timedelta(0)), what)
    return parse_duration(value, what)


def _parse_iso(text: str, what: str) -> datetime:
    try:
        found = parse_datetime(text) if len(text) <= 64 else None
    except ValueError:  # it has the form of a time, and there is none like it
        found = None
    if found is None:
        raise InvalidOption(f"{what} {text[:64]!r} is not a time in ISO 8601.")
    return found
