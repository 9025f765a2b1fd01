"""Reading the query of a list (wire-protocol 5.2): cursors, lists with commas, and times."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from django.http import QueryDict
from django.utils.dateparse import parse_datetime

from realtime_runs.durations import parse_duration
from realtime_runs.exceptions import InvalidInput
from realtime_runs.wire.errors import QueryError

_DEFAULT_SIZE: Final = 25


def page_of(query: QueryDict) -> dict[str, Any]:
    """`page_size`, `after` and `before`. Raises QueryError."""
    size = query.get("page[size]", str(_DEFAULT_SIZE))
    if not (size.isascii() and size.isdigit() and len(size) < 4 and 1 <= int(size) <= 100):
        raise QueryError(**{"page[size]": "must be a whole number from 1 to 100"})
    return {
        "page_size": int(size),
        "after": query.get("page[after]") or None,
        "before": query.get("page[before]") or None,
    }


def listed(query: QueryDict, name: str) -> list[str] | None:
    """What is between the commas; None when the parameter is not there."""
    given = query.get(name)
    return None if given is None else [text for text in given.split(",") if text]


def truth(query: QueryDict, name: str) -> bool | None:
    given = query.get(name)
    if given not in (None, "true", "false"):
        raise QueryError(**{name: "must be true or false"})
    return None if given is None else given == "true"


def created(query: QueryDict) -> dict[str, Any]:
    """The filters of the time at which it was created. Raises QueryError."""
    period = query.get("filter[createdAt][period]")
    try:
        return {
            "created_after": _time(query, "filter[createdAt][from]"),
            "created_before": _time(query, "filter[createdAt][to]"),
            "period": None if period is None else parse_duration(period, "filter[createdAt][period]"),
        }
    except QueryError:
        raise
    except InvalidInput as error:
        raise QueryError(**{"filter[createdAt][period]": str(error)}) from None


def _time(query: QueryDict, name: str) -> datetime | None:
    """Milliseconds since 1970, or ISO 8601 with a zone."""
    given = query.get(name)
    if given is None:
        return None
    found: datetime | None = None
    try:
        if given.isascii() and given.isdigit() and len(given) <= 15:
            found = datetime.fromtimestamp(int(given) / 1000, UTC)
        elif len(given) <= 64:
            found = parse_datetime(given)
    except (ValueError, OverflowError, OSError):
        pass
    if found is None or found.tzinfo is None or not 1970 <= found.year <= 9998:
        raise QueryError(**{name: "must be milliseconds since 1970, or a time in ISO 8601 with its zone"})
    return found


def refuse_unknown(name: str, given: Iterable[str] | None, known: Iterable[str]) -> None:
    if unknown := set(given or ()).difference(known):
        raise QueryError(**{name: f"unknown {min(unknown)!r}; there are {', '.join(known)}"})
