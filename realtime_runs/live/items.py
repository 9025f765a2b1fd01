"""What loops over runs and streams give. Needs no database."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from realtime_runs.live.realtime_run import O, P, RealtimeRun

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RunUpdate(Generic[P, O]):
    """A run has a new version."""

    run: RealtimeRun[P, O]


@dataclass(frozen=True, slots=True)
class StreamChunk(Generic[P, O]):
    """A chunk of a stream. `run` is the newest snapshot that was given."""

    run: RealtimeRun[P, O]
    stream: str
    index: int
    chunk: Any


@dataclass(frozen=True, slots=True)
class StreamRestarted:
    """A new attempt of the run began the stream anew: what was read before is void. The next chunk has `index`."""

    run_id: str
    stream: str
    attempt: int
    index: int


@dataclass(frozen=True, slots=True)
class StreamRecord(Generic[T]):
    """A chunk and what is known of it. `attempt` is 0 when it was written from outside of the run."""

    index: int
    chunk: T
    attempt: int
    at: datetime
    id: str
