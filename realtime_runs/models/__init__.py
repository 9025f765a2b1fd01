"""The records. Rules that must always hold are constraints in here; who may change what is decided in `engine`."""

from realtime_runs.models.batch import Batch, BatchItem
from realtime_runs.models.clock import FromNow, database_now
from realtime_runs.models.history import Attempt, RunEvent
from realtime_runs.models.idempotency import IdempotencyClaim
from realtime_runs.models.returning import Change
from realtime_runs.models.run import Run
from realtime_runs.models.stream import Stream, StreamChunk, StreamName
from realtime_runs.models.tag import RunTag, Tag
from realtime_runs.models.wait_token import WaitToken, WaitTokenTag
from realtime_runs.models.wire import AnsweredRequest, SpentToken

__all__ = [
    "AnsweredRequest",
    "Attempt",
    "Batch",
    "BatchItem",
    "Change",
    "FromNow",
    "IdempotencyClaim",
    "Run",
    "RunEvent",
    "RunTag",
    "SpentToken",
    "Stream",
    "StreamChunk",
    "StreamName",
    "Tag",
    "WaitToken",
    "WaitTokenTag",
    "database_now",
]
