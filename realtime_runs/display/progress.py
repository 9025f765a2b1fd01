"""What a run's metadata says about how far it is."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Progress:
    """`percentage` is from 0 to 100; `text` says it in the task's own units ("1,200 of 3,376"), or is empty."""

    percentage: float
    text: str = ""


def read_progress(metadata: Mapping[str, Any]) -> Progress | None:
    """Understand `metadata["progress"]`; None when it is in none of these forms.

    `{"percentage": 40}`, `{"current": 2, "total": 5}`, both, or a number: up to 1 a fraction, above it a percentage.
    """
    progress = metadata.get("progress")
    if isinstance(progress, Mapping):
        current, total = number(progress.get("current")), number(progress.get("total"))
        percentage = number(progress.get("percentage"))
        if current is None or total is None or total <= 0:
            return None if percentage is None else Progress(clamp(percentage))
        if percentage is None:
            percentage = 100 * current / total
        return Progress(clamp(percentage), f"{current:,.10g} of {total:,.10g}")
    value = number(progress)
    if value is None:
        return None
    return Progress(clamp(value if value > 1 else 100 * value))


def read_note(metadata: Mapping[str, Any]) -> str:
    """What a run says about itself: `metadata["status"]`, or else `metadata["progress"]["currentItem"]`; or nothing."""
    progress = metadata.get("progress")
    item = progress.get("currentItem") if isinstance(progress, Mapping) else None
    text = metadata.get("status", item)
    return text if isinstance(text, str) else ""


def number(value: Any) -> float | None:
    # Metadata is whatever a task wrote: true is no number, and an integer may be too large for a float.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
        return None
    return float(value) if math.isfinite(value) else None


def clamp(percentage: float) -> float:
    return min(max(percentage, 0.0), 100.0)
