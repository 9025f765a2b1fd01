"""What travels from who appends to who reads: chunks, and news of a stream."""

from dataclasses import dataclass, field
from datetime import datetime

from realtime_runs.models import StreamName


@dataclass(frozen=True, slots=True)
class Chunk:
    """One stored item of a stream. `data` is encoded; `attempt` is 0 when it was written from outside of the run."""

    index: int
    data: bytes
    attempt: int
    at: datetime
    record_id: str


@dataclass(frozen=True, slots=True)
class End:
    """A stream is closed. `reason`: `closed`, `error`, or how its run ended, in lower case."""

    reason: str


@dataclass(slots=True, eq=False)
class Appended:
    """News of a stream: these chunks follow from `first` on, without gaps, and perhaps its end."""

    name: StreamName
    first: int
    chunks: list[Chunk] = field(default_factory=list)
    end: End | None = None
    restart_index: int = 0

    @property
    def next_index(self) -> int:
        return self.first + len(self.chunks)
