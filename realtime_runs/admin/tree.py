"""A JSON value as a tree that opens and closes without a script."""

import json
from collections.abc import Iterator
from typing import Any, Final

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from realtime_runs.display.text import showable

_MOST_NODES: Final = 500
_LONGEST_TEXT: Final = 2000
_OPEN_LEVELS: Final = 2


class _Budget:
    def __init__(self) -> None:
        self.nodes = _MOST_NODES

    def take(self) -> bool:
        self.nodes -= 1
        return self.nodes >= 0


def tree(value: Any) -> SafeString:
    """Nested lists; objects and arrays inside are `<details>`. Of more than 500 values the rest is only counted."""
    return _node(value, _Budget(), 0)


def _node(value: Any, budget: _Budget, level: int) -> SafeString:
    if isinstance(value, dict) and value:
        return _branch([(showable(str(key), 200), item) for key, item in value.items()], budget, level)
    if isinstance(value, list) and value:
        return _branch([(str(index), item) for index, item in enumerate(value)], budget, level)
    return _leaf(value)


def _branch(items: list[tuple[str, Any]], budget: _Budget, level: int) -> SafeString:
    return format_html('<ul class="rr-tree">{}</ul>', format_html_join("", "{}", _entries(items, budget, level)))


def _entries(items: list[tuple[str, Any]], budget: _Budget, level: int) -> Iterator[tuple[SafeString]]:
    for position, (name, item) in enumerate(items):
        if not budget.take():
            yield (format_html('<li class="rr-more">{} more</li>', f"{len(items) - position:,}"),)
            return
        if isinstance(item, dict | list) and item:
            yield (
                format_html(
                    '<li><details{}><summary><span class="rr-name">{}</span> <span class="rr-size">{}</span></summary>'
                    "{}</details></li>",
                    SafeString(" open") if level < _OPEN_LEVELS else "",
                    name,
                    f"{len(item):,} {'fields' if isinstance(item, dict) else 'items'}",
                    _node(item, budget, level + 1),
                ),
            )
        else:
            yield (format_html('<li><span class="rr-name">{}</span> {}</li>', name, _leaf(item)),)


def _leaf(value: Any) -> SafeString:
    if isinstance(value, str):
        return format_html('<span class="rr-text" dir="auto">{}</span>', showable(value, _LONGEST_TEXT))
    return format_html('<span class="rr-value">{}</span>', json.dumps(value))
