"""How long a run took, in words."""

from typing import Any

from django.utils import timezone

from realtime_runs.live.snapshot import RealtimeRun


def seconds(milliseconds: float) -> str:
    """`0.42 s`, `12.3 s`, `2 min 05 s`, `1 h 02 min`."""
    total = milliseconds / 1000
    if total < 10:
        return f"{total:.2f} s"
    if total < 60:
        return f"{total:.1f} s"
    minutes, rest = divmod(int(total), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def duration(run: RealtimeRun[Any, Any]) -> str:
    """From the first start to the end, or until now; empty for a run that has not started."""
    if run.started_at is None:
        return ""
    elapsed = (run.finished_at or timezone.now()) - run.started_at
    return seconds(max(0.0, elapsed.total_seconds()) * 1000)
