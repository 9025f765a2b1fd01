"""The statuses of a run and the one table of the moves between them.

The names are the API names of the wire (wire-protocol 1.6). `docs/lifecycle.md` draws this table; a test compares them.
"""

from collections.abc import Mapping
from typing import Final

from django.db.models import TextChoices


class RunStatus(TextChoices):
    DELAYED = "DELAYED"  # will be queued at `delayed_until`
    QUEUED = "QUEUED"  # waits for a worker; a retry waits here too, until its back-off is over
    EXECUTING = "EXECUTING"  # a worker holds the lease and runs the function
    WAITING = "WAITING"  # the function waits (for a child run, ...); the lease is held, the worker's slot is free
    COMPLETED = "COMPLETED"  # the function returned
    CANCELED = "CANCELED"  # somebody asked for it
    FAILED = "FAILED"  # the function raised, and no attempt is left
    CRASHED = "CRASHED"  # the worker died in the last attempt
    SYSTEM_FAILURE = "SYSTEM_FAILURE"  # we could not run it: no worker knows the task
    EXPIRED = "EXPIRED"  # not started within its ttl
    TIMED_OUT = "TIMED_OUT"  # ran longer than max_duration


FINAL: Final = frozenset(
    {
        RunStatus.COMPLETED,
        RunStatus.CANCELED,
        RunStatus.FAILED,
        RunStatus.CRASHED,
        RunStatus.SYSTEM_FAILURE,
        RunStatus.EXPIRED,
        RunStatus.TIMED_OUT,
    }
)
LEASED: Final = frozenset({RunStatus.EXECUTING, RunStatus.WAITING})
UNFINISHED: Final = frozenset(RunStatus) - FINAL

# A run that ended like this gives its idempotency key back, so that the next trigger makes a new run.
FREES_IDEMPOTENCY_KEY: Final = FINAL - {RunStatus.COMPLETED, RunStatus.CANCELED}

# target: the statuses it may be entered from. A run is born QUEUED or DELAYED; nothing leaves a final status.
ENTERED_FROM: Final[Mapping[RunStatus, frozenset[RunStatus]]] = {
    RunStatus.DELAYED: frozenset(),
    RunStatus.QUEUED: frozenset({RunStatus.DELAYED, RunStatus.EXECUTING, RunStatus.WAITING}),
    RunStatus.EXECUTING: frozenset({RunStatus.QUEUED, RunStatus.WAITING}),
    RunStatus.WAITING: frozenset({RunStatus.EXECUTING}),
    RunStatus.COMPLETED: frozenset({RunStatus.EXECUTING}),
    RunStatus.FAILED: frozenset({RunStatus.EXECUTING}),
    RunStatus.CANCELED: UNFINISHED,
    RunStatus.CRASHED: LEASED,
    RunStatus.SYSTEM_FAILURE: frozenset({RunStatus.QUEUED}),
    RunStatus.EXPIRED: frozenset({RunStatus.QUEUED}),
    RunStatus.TIMED_OUT: LEASED,
}
