"""What can go wrong, one class per failure a caller can act on. No HTTP in here: `wire` has the table of statuses."""

from collections.abc import Sequence
from typing import Any


class RealtimeRunsError(Exception):
    """Base of every error that this package raises on purpose."""


class NotFound(RealtimeRunsError):
    """The thing that was asked for does not exist. `id` is what was asked for."""

    what = "Object"

    def __init__(self, id: str) -> None:
        self.id = id
        super().__init__(f"{self.what} {id!r} does not exist.")


class RunNotFound(NotFound):
    what = "Run"


class BatchNotFound(NotFound):
    what = "Batch"


class WaitTokenNotFound(NotFound):
    what = "Wait token"


class UnknownTask(NotFound):
    """No installed app defines a task with this id."""

    what = "Task"

    def __init__(self, id: str, known: Sequence[str] = ()) -> None:
        super().__init__(id)
        if known:
            self.args = (f"{self.args[0]} Known tasks: {', '.join(sorted(known))}.",)


class InvalidInput(RealtimeRunsError, ValueError):
    """A value that was given cannot be used; nothing was stored."""


class PayloadInvalid(InvalidInput):
    """The payload does not fit the task's annotation. `errors` are pydantic's: dicts with `loc`, `msg` and `type`."""

    def __init__(self, task_id: str, errors: Sequence[Any]) -> None:
        self.task_id = task_id
        self.errors = list(errors)
        fields = "; ".join(f"{'.'.join(map(str, error['loc'])) or 'payload'}: {error['msg']}" for error in self.errors)
        super().__init__(f"The payload does not fit task {task_id!r}: {fields}")


class OutputInvalid(RealtimeRunsError):
    """What the task returned does not fit its return annotation, or is not JSON."""


class ChunkInvalid(InvalidInput):
    """A chunk does not fit the type that its stream was defined with."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"The chunk does not fit stream {key!r}: {reason}")


class NotJson(InvalidInput):
    """The value cannot be stored as JSON on every database (NaN, NUL, lone surrogates, unknown types, too deep)."""


class TooLarge(InvalidInput):
    """A size limit was passed. `size` and `limit` are in `unit` (bytes unless said otherwise)."""

    def __init__(self, what: str, size: int, limit: int, setting: str, unit: str = "bytes") -> None:
        self.size = size
        self.limit = limit
        self.unit = unit
        super().__init__(f"{what} has {size:,} {unit}; at most {limit:,} are allowed ({setting}).")


class InvalidOption(InvalidInput):
    """A trigger option, filter or duration has no meaning (negative delay, unknown status, naive datetime, ...)."""


class ParentNotFound(InvalidInput):
    """The run whose child was wanted does not exist; none was made."""

    def __init__(self, id: str) -> None:
        self.id = id
        super().__init__(f"The parent, run {id!r}, does not exist.")


class BatchItemInvalid(InvalidInput):
    """No run can be made of an item of a batch, so nothing of it was stored. `index`: its place, from 0."""

    def __init__(self, index: int, reason: str) -> None:
        self.index = index
        super().__init__(f"Item {index} of the batch: {reason}")


class BatchMissing(InvalidInput):
    """There is no such batch that items could be added to; none was stored."""

    def __init__(self, id: str) -> None:
        super().__init__(f"There is no batch {id!r} to add items to.")


class InvalidTransition(RealtimeRunsError):
    """The run is not in a status from which this move is allowed; it was left unchanged."""

    def __init__(self, run_id: str, status: str, wanted: str) -> None:
        self.run_id = run_id
        self.status = status
        self.wanted = wanted
        super().__init__(f"Run {run_id} is {status} and cannot be {wanted}.")


class LeaseLost(RealtimeRunsError):
    """This worker may no longer write for the run: it was canceled, reclaimed or finished elsewhere. Nothing was
    written.
    """

    def __init__(self, run_id: str, attempt: int) -> None:
        self.run_id = run_id
        self.attempt = attempt
        super().__init__(f"Attempt {attempt} no longer holds the lease of run {run_id}.")


class RunStopped(RealtimeRunsError):
    """The run was told to stop (canceled, timed out, its worker is going away); it waits and triggers no more."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        super().__init__(f"Run {run_id} was told to stop.")


class StreamClosed(RealtimeRunsError):
    """The stream takes no more chunks: it was closed, or its run is over. `reason` says why; nothing was stored."""

    def __init__(self, run_id: str, key: str, reason: str) -> None:
        self.run_id = run_id
        self.key = key
        self.reason = reason
        super().__init__(f"Stream {key!r} of run {run_id} is closed ({reason}) and takes no more chunks.")


class PipeOverrun(RealtimeRunsError):
    """A loop over a pipe began when more chunks had gone through it than are kept for one. All were stored."""

    def __init__(self, kept: int) -> None:
        super().__init__(f"More than {kept:,} chunks went through the pipe before this loop began; iterate at once.")


class StreamTimeout(RealtimeRunsError, TimeoutError):
    """A stream brought nothing for `seconds`. Reading on from `index` loses nothing."""

    def __init__(self, run_id: str, key: str, seconds: float, index: int) -> None:
        self.index = index
        super().__init__(f"Stream {key!r} of run {run_id} brought nothing for {seconds:g} s; next would be {index}.")


class StreamAborted(RealtimeRunsError):
    """The `signal` of a reader was set. Reading on from `index` loses nothing."""

    def __init__(self, run_id: str, key: str, index: int) -> None:
        self.index = index
        super().__init__(f"Reading stream {key!r} of run {run_id} was aborted; next would be {index}.")


class StreamGap(RealtimeRunsError):
    """The chunks before `first_index` are not kept any more. Read on from there."""

    def __init__(self, run_id: str, key: str, index: int, first_index: int) -> None:
        self.index = index
        self.first_index = first_index
        super().__init__(
            f"Stream {key!r} of run {run_id} is kept from {first_index} on; {index} was removed. Read from there."
        )


class WaitTimeout(RealtimeRunsError, TimeoutError):
    """What a task waited for did not come in time."""

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(f"{what} did not come in time.")


class NotInsideRun(RealtimeRunsError):
    """`metadata`, `tags`, `current_run()` and the waiting triggers work only inside a running task."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} can only be used inside a running task.")


class AbortRun(RealtimeRunsError):
    """Raise it in a task to fail the run at once, without further attempts."""


class ChildFailed(RealtimeRunsError):
    """A child run did not complete, and its result was unwrapped. `run` is the child's snapshot."""

    def __init__(self, run: Any) -> None:
        self.run = run
        reason = f": {run.error.message}" if run.error else "."
        super().__init__(f"Child run {run.id} of task {run.task_identifier!r} is {run.status}{reason}")


class PollTimeout(RealtimeRunsError, TimeoutError):
    """The run was not final within the time that the caller gave."""


class AccessDenied(RealtimeRunsError):
    """Base of the refusals of `access`."""


class InvalidToken(AccessDenied):
    """There is no credential, or it is not valid (any more). The text says why, and never shows the credential."""


class KeyNeeded(InvalidToken):
    """A valid public token was sent where only a secret key will do."""

    def __init__(self) -> None:
        super().__init__("This needs a secret key; public tokens are not allowed here.")


class Forbidden(AccessDenied):
    """The credential is valid, but its scopes, or the policy, do not allow this."""

    def __init__(self) -> None:
        super().__init__("Unauthorized")


class TokenSpent(AccessDenied):
    """A token that is good for one use was used before."""

    def __init__(self) -> None:
        super().__init__("This single-use token has already been spent.")


class ConnectionFailed(RealtimeRunsError):
    """`realtime_runs.client` could not reach the server, however often it tried."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"{url} cannot be reached: {reason}")


class ServerError(RealtimeRunsError):
    """The server answered `realtime_runs.client` with a status that it should not have."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(f"{status}: {message}")
