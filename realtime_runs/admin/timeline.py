"""The way of a run through its statuses, as bars: one line for the queue, one for each attempt."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from realtime_runs.display.elapsed import seconds
from realtime_runs.display.text import showable
from realtime_runs.live.snapshot import RunError
from realtime_runs.models import Attempt, Run, RunEvent
from realtime_runs.statuses import FINAL, RunStatus

MOST_EVENTS: Final = 300
KINDS: Final = ("delayed", "queued", "executing", "waiting", "retrying")
_IN_QUEUE: Final = ("delayed", "queued", "retrying")
_MOST_LANES: Final = 12
_THINNEST: Final = 0.4  # percent
_QUEUE: Final = "Queue"


@dataclass(frozen=True, slots=True)
class Bar:
    """`x` and `width` in percent of the whole time."""

    kind: str  # one of KINDS
    x: float
    width: float
    words: str


@dataclass(slots=True)
class Lane:
    label: str
    bars: list[Bar] = field(default_factory=list)
    end: str = ""  # the name of the error with which the attempt ended


@dataclass(frozen=True, slots=True)
class Step:
    """A status, from when, and for how long; a final one took no time."""

    kind: str
    status: RunStatus
    attempt: int
    at: datetime
    took: timedelta | None

    @property
    def words(self) -> str:
        return "Waiting to be tried again" if self.kind == "retrying" else str(self.status.label)

    @property
    def took_words(self) -> str:
        return "" if self.took is None else seconds(self.took.total_seconds() * 1000)


@dataclass(frozen=True, slots=True)
class Timeline:
    """`ticks`: (percent, words). `is_cut`: the beginning is missing."""

    lanes: list[Lane]
    ticks: list[tuple[int, str]]
    steps: list[Step]
    summary: str
    is_cut: bool
    kinds: list[str]


def draw(run: Run, events: Sequence[RunEvent], attempts: Sequence[Attempt], now: datetime) -> Timeline:
    """`events` and `attempts` are the newest ones, oldest first."""
    steps = _steps(run, events, now)
    start = events[0].at if events else run.created_at
    whole = max((run.finished_at or now) - start, timedelta(milliseconds=1))
    lanes: dict[str, Lane] = {}
    for step in steps:
        if step.took is not None:
            label = _QUEUE if step.kind in _IN_QUEUE else f"Attempt {step.attempt}"
            lanes.setdefault(label, Lane(label)).bars.append(_bar(step, start, whole))
    for attempt in attempts:
        error = RunError.from_json(attempt.error)
        if error and (its := lanes.get(f"Attempt {attempt.number}")):
            its.end = showable(error.name, 60)
    queue = [lanes.pop(_QUEUE)] if _QUEUE in lanes else []
    shown = [*queue, *list(lanes.values())[-(_MOST_LANES - len(queue)) :]]
    return Timeline(
        lanes=shown,
        ticks=[(percent, seconds(whole.total_seconds() * 10 * percent)) for percent in (0, 25, 50, 75, 100)],
        steps=steps,
        summary=", ".join(f"{step.words} {step.took_words}".strip() for step in steps[-20:]),
        is_cut=len(events) >= MOST_EVENTS or len(lanes) + len(queue) > len(shown),
        kinds=[kind for kind in KINDS if any(step.kind == kind for step in steps)],
    )


def _steps(run: Run, events: Sequence[RunEvent], now: datetime) -> list[Step]:
    ends = [*(event.at for event in events[1:]), run.finished_at or now]
    return [
        Step(
            kind="retrying" if event.status == RunStatus.QUEUED and event.attempt else event.status.lower(),
            status=RunStatus(event.status),
            attempt=event.attempt,
            at=event.at,
            took=None if event.status in FINAL else max(end - event.at, timedelta()),
        )
        for event, end in zip(events, ends, strict=False)
    ]


def _bar(step: Step, start: datetime, whole: timedelta) -> Bar:
    took = step.took or timedelta()
    x = min(100 * ((step.at - start) / whole), 100 - _THINNEST)
    width = min(max(100 * (took / whole), _THINNEST), 100 - x)
    return Bar(step.kind, x, width, f"{step.words}, {step.took_words}")
