"""The metadata operations of wire-protocol 6.1, on plain dicts. Pure: nothing here knows a run."""

import copy
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from realtime_runs.conf import app_settings
from realtime_runs.exceptions import InvalidOption, TooLarge

Kind = Literal["set", "delete", "append", "remove", "increment", "update"]

_FORBIDDEN: Final = frozenset({"__proto__", "constructor", "prototype"})
_MISSING: Final = object()


@dataclass(frozen=True, slots=True)
class Operation:
    """One change. `key` is literal, dots included, unless it begins with `$.`: then it is a path: `$.a.0.b`, `*` for
    every element.
    """

    kind: Kind
    key: str = ""
    value: Any = None

    def __post_init__(self) -> None:
        if self.kind == "update":
            if not isinstance(self.value, dict):
                raise InvalidOption("The metadata must be an object.")
            return
        if not isinstance(self.key, str):
            raise InvalidOption(f"A metadata key is a text, not {self.key!r}.")
        if self.kind == "increment" and (
            isinstance(self.value, bool)
            or not (isinstance(self.value, int) or (isinstance(self.value, float) and math.isfinite(self.value)))
        ):
            raise InvalidOption(f"Metadata is incremented by a number, not {self.value!r}.")
        if self.key == "__proto__" or (self.key.startswith("$.") and not self._path_is_allowed()):
            raise InvalidOption(f"{self.key!r} cannot be a metadata key.")

    @property
    def is_wide(self) -> bool:
        """Whether it may touch many places."""
        return self.key.startswith("$.") and "*" in self.key[2:].split(".")

    def _path_is_allowed(self) -> bool:
        segments = self.key[2:].split(".")
        return self.key != "$." and not _FORBIDDEN.intersection(segments)


def apply(operations: Iterable[Operation], metadata: dict[str, Any]) -> dict[str, Any]:
    """A new object: `metadata` after the operations, in order. The argument is left alone."""
    result = copy.deepcopy(metadata)
    for operation in operations:
        result = _apply_one(operation, result)
    return result


def _apply_one(operation: Operation, root: dict[str, Any]) -> dict[str, Any]:
    if operation.kind == "update":
        return dict(copy.deepcopy(operation.value))
    if operation.kind == "delete":
        root.pop(operation.key, None)  # always literal: the reference server deletes no paths
        return root
    places = list(_places(root, operation.key))  # first: a change must not alter the walk
    if len(places) > 1 and operation.kind in ("set", "append"):
        _check_growth(len(places), operation.value)
    for container, key in places:
        _change(operation, container, key)
    return root


def _check_growth(copies: int, value: Any) -> None:
    """Before they are made: a small text with a `*` can mean gigabytes."""
    limit: int = app_settings.MAX_METADATA_BYTES
    size = copies * len(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
    if size > limit:
        raise TooLarge("metadata", size, limit, "MAX_METADATA_BYTES")


def _change(operation: Operation, container: Any, key: Any) -> None:
    old = _get(container, key)
    value = copy.deepcopy(operation.value)
    if operation.kind == "set":
        _put(container, key, value)
    elif operation.kind == "append":
        if old is _MISSING:
            _put(container, key, [value])
        else:
            _put(container, key, [*old, value] if isinstance(old, list) else [old, value])
    elif operation.kind == "remove":
        if isinstance(old, list):
            _put(container, key, [item for item in old if not _equal(item, value)])
    elif operation.kind == "increment":
        is_number = isinstance(old, int | float) and not isinstance(old, bool)
        total = _sum(old if is_number else 0, value)
        if total is not None:
            _put(container, key, total)


def _sum(one: float, other: float) -> float | None:
    """None when no float can hold it."""
    try:
        total = one + other
    except OverflowError:
        return None
    return total if isinstance(total, int) or math.isfinite(total) else None


def _equal(one: Any, other: Any) -> bool:
    """Deep equality of JSON: unlike Python's, true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    return bool(one == other)


def _places(root: dict[str, Any], key: str) -> Iterator[tuple[Any, Any]]:
    """Where the key points: (container, key or index).

    A missing last segment is a place, below a missing parent there is none.
    """
    if not key.startswith("$."):
        yield root, key
        return
    *parents, last = key[2:].split(".")
    containers: list[Any] = [root]
    for segment in parents:
        containers = [
            child
            for container in containers
            for place in _segment_places(container, segment)
            if (child := _get(container, place)) is not _MISSING
        ]
    for container in containers:
        for place in _segment_places(container, last):
            yield container, place


def _segment_places(container: Any, segment: str) -> list[Any]:
    if isinstance(container, dict):
        return list(container) if segment == "*" else [segment]
    if isinstance(container, list):
        if segment == "*":
            return list(range(len(container)))
        # One past the end is where a list grows; further would leave holes, which JSON does not have.
        is_index = segment.isascii() and segment.isdigit() and len(segment) < 10
        return [int(segment)] if is_index and int(segment) <= len(container) else []
    return []


def _get(container: Any, place: Any) -> Any:
    if isinstance(container, list):
        return container[place] if place < len(container) else _MISSING
    return container.get(place, _MISSING)


def _put(container: Any, place: Any, value: Any) -> None:
    if isinstance(container, list) and place == len(container):
        container.append(value)
    else:
        container[place] = value
