"""What readers get: a run at one version, immutable, the same class in-process and from the HTTP client."""

import json
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Generic, Protocol, cast

from typing_extensions import TypeVar

from realtime_runs.packets import NOTHING, Packet, unpack
from realtime_runs.statuses import FINAL, RunStatus

P = TypeVar("P", default=Any)
O = TypeVar("O", default=Any)  # noqa: E741 the pair is written Task[P, O] everywhere


class PayloadTypes(Protocol):
    """How the task's annotations read a payload and an output."""

    def payload(self, packet: Packet) -> Any: ...

    def output(self, packet: Packet) -> Any: ...


@dataclass(frozen=True, slots=True)
class RunError:
    """Why a run, or an attempt, failed. `stack_trace` is the Python traceback, or empty."""

    name: str
    message: str
    stack_trace: str = ""

    @classmethod
    def from_json(cls, text: str) -> "RunError | None":
        return cls(**json.loads(text)) if text else None

    def to_json(self) -> str:
        # ASCII: a traceback may hold lone surrogates, and an error must always be storable.
        return json.dumps({"name": self.name, "message": self.message, "stack_trace": self.stack_trace})


@dataclass(frozen=True, eq=False)
class RealtimeRun(Generic[P, O]):
    """A run as it was at `version`. Fields are those of the wire's run object (wire-protocol 5.1) in snake_case.

    All times are aware datetimes. `payload`, `output` and `metadata` are decoded when first used; with the task's types
    where this process knows the task, as plain JSON otherwise.
    """

    id: str
    task_identifier: str
    status: RunStatus
    version: int
    created_at: datetime
    updated_at: datetime
    queued_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    delayed_until: datetime | None
    expired_at: datetime | None
    ttl: str
    tags: tuple[str, ...]
    attempt_count: int
    max_attempts: int
    max_duration: float | None
    queue: str
    concurrency_key: str
    priority: float
    is_test: bool
    idempotency_key: str
    batch_id: str | None
    parent_id: str | None
    root_id: str | None
    depth: int
    trigger_function: str
    realtime_streams: tuple[str, ...]
    error: RunError | None
    metadata_json: str = field(repr=False)
    payload_packet: Packet = field(repr=False, default=NOTHING)
    output_packet: Packet = field(repr=False, default=NOTHING)
    types: PayloadTypes | None = field(repr=False, default=None)

    @cached_property
    def payload(self) -> P:
        return cast(P, self.types.payload(self.payload_packet) if self.types else unpack(self.payload_packet))

    @cached_property
    def output(self) -> O:
        """What the task returned; None unless the run is COMPLETED."""
        if self.output_packet.text is None or self.types is None:
            return cast(O, unpack(self.output_packet))
        return cast(O, self.types.output(self.output_packet))

    @cached_property
    def metadata(self) -> dict[str, Any]:
        return cast(dict[str, Any], json.loads(self.metadata_json))

    @property
    def duration_ms(self) -> int:
        """From the first start to the end, in milliseconds; 0 before the end."""
        if not self.started_at or not self.finished_at:
            return 0
        return max(0, round((self.finished_at - self.started_at).total_seconds() * 1000))

    @property
    def is_queued(self) -> bool:
        return self.status in (RunStatus.QUEUED, RunStatus.DELAYED)

    @property
    def is_executing(self) -> bool:
        return self.status == RunStatus.EXECUTING

    @property
    def is_waiting(self) -> bool:
        return self.status == RunStatus.WAITING

    @property
    def is_completed(self) -> bool:
        """The run is over, whatever its end."""
        return self.status in FINAL

    @property
    def is_failed(self) -> bool:
        """The run is over and did not succeed (also when it was canceled)."""
        return self.is_completed and not self.is_success

    @property
    def is_success(self) -> bool:
        return self.status == RunStatus.COMPLETED

    @property
    def is_cancelled(self) -> bool:
        return self.status == RunStatus.CANCELED
