"""Texts that a task wrote, in a form that fits on a page."""

import re
from typing import Final

# NUL and half characters, which a page cannot hold. A browser shows the same character for them.
_IMPOSSIBLE: Final = re.compile("[\0\ud800-\udfff]")


def showable(text: str, longest: int = 0) -> str:
    """What UTF-8 and HTML can hold; with `longest`, no more characters than that."""
    if longest and len(text) > longest:
        text = text[: longest - 1] + "…"
    return _IMPOSSIBLE.sub("\N{REPLACEMENT CHARACTER}", text)
