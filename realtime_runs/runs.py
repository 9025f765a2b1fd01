"""Runs: looking at them, following them, and changing their course.

A run argument is an id, a handle, a snapshot or a row. Functions that touch the database have an async twin: `a` +
name.
"""

import asyncio
import time
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Final, Unpack, cast, overload

from asgiref.sync import sync_to_async

from realtime_runs.conf import app_settings
from realtime_runs.durations import Duration, parse_duration, parse_when
from realtime_runs.engine import lifecycle, registry, triggering
from realtime_runs.engine.context import current_run
from realtime_runs.engine.editing import add_tags as _add_tags
from realtime_runs.engine.listing import RunPage, list_runs
from realtime_runs.engine.options import TriggerOptions, check_tags
from realtime_runs.engine.triggering import BatchHandle, Request, RunHandle
from realtime_runs.exceptions import InvalidOption, InvalidTransition, PollTimeout, RunNotFound
from realtime_runs.live.closing import Signal
from realtime_runs.live.feeds import BatchFeed, RunFeed, TagFeed
from realtime_runs.live.follow import Subscription
from realtime_runs.live.items import RunUpdate, StreamChunk, StreamRestarted
from realtime_runs.live.snapshot import O, P, RealtimeRun, RunError, snapshot, typed
from realtime_runs.live.with_streams import StreamSubscription
from realtime_runs.models import Run
from realtime_runs.statuses import RunStatus

__all__ = [
    "RealtimeRun",
    "RunArgument",
    "RunError",
    "RunPage",
    "RunStatus",
    "RunUpdate",
    "StreamChunk",
    "StreamRestarted",
    "StreamSubscription",
    "Subscription",
    "aadd_tags",
    "acancel",
    "add_tags",
    "alist",
    "apoll",
    "areplay",
    "areschedule",
    "aretrieve",
    "cancel",
    "current_run",
    "list",
    "poll",
    "replay",
    "reschedule",
    "retrieve",
    "subscribe_to_batch",
    "subscribe_to_run",
    "subscribe_to_runs_with_tag",
]

RunArgument = str | RunHandle[Any, Any] | RealtimeRun[Any, Any] | Run

_NEVER: Final = float("inf")


def _id(run: RunArgument) -> str:
    return run if isinstance(run, str) else run.id


def _typed(run: RealtimeRun) -> RealtimeRun:
    """With the task's own types, where this process knows the task."""
    return typed(run, registry.find(run.task_identifier))


def _row(run: RunArgument) -> Run:
    row = Run.objects.find(_id(run))
    if row is None:
        raise RunNotFound(_id(run))
    return row


# -- looking ----------------------------------------------------------------------------------------------------------


@overload
def retrieve(run: RunHandle[P, O] | RealtimeRun[P, O]) -> RealtimeRun[P, O]: ...
@overload
def retrieve(run: str | Run) -> RealtimeRun[Any, Any]: ...
def retrieve(run: RunArgument) -> RealtimeRun[Any, Any]:
    """The run as it is now. Raises RunNotFound."""
    return _typed(snapshot(_row(run)))


async def aretrieve(run: RunArgument) -> RealtimeRun[Any, Any]:
    return await sync_to_async(retrieve)(run)  # type: ignore[arg-type]  # mypy does not pass a union on to overloads


def list(
    *,
    status: str | Iterable[str] | None = None,
    task: str | Iterable[str] | None = None,
    tag: str | Iterable[str] | None = None,
    batch: BatchHandle | str | None = None,
    queue: str | Iterable[str] | None = None,
    is_test: bool | None = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
    period: Duration | None = None,
    page_size: int = 25,
    after: str | None = None,
    before: str | None = None,
) -> RunPage:
    """A page of runs, newest first; iterating it (`for`, `async for`) goes on through all later pages.

    Each filter takes one value or several, of which any may match. `period`: created not longer ago than this.
    `page_size`: 1 to 100. `after`, `before`: `next` or `previous` of an earlier page. Raises InvalidOption for an
    unknown status, cursor, page size or naive time.
    """
    return list_runs(
        status=status,
        task=task,
        tag=tag,
        batch=batch.id if isinstance(batch, BatchHandle) else batch,
        queue=queue,
        is_test=is_test,
        created_after=created_after,
        created_before=created_before,
        period=None if period is None else parse_duration(period, "period"),
        page_size=page_size,
        after=after,
        before=before,
        convert=_typed,
    )


alist = sync_to_async(list)


def poll(run: RunArgument, *, interval: Duration = 1.0, timeout: Duration | None = None) -> RealtimeRun[Any, Any]:
    """Look every `interval` seconds until the run is final.

    Raises RunNotFound, or PollTimeout after `timeout` (default: never).
    """
    pause, until = _poll_times(interval, timeout)
    while True:
        found = _typed(snapshot(_row(run)))
        if found.is_completed:
            return found
        _check_poll(found, until, pause)
        time.sleep(pause)


async def apoll(
    run: RunArgument, *, interval: Duration = 1.0, timeout: Duration | None = None
) -> RealtimeRun[Any, Any]:
    pause, until = _poll_times(interval, timeout)
    while True:
        found = await aretrieve(run)
        if found.is_completed:
            return found
        _check_poll(found, until, pause)
        await asyncio.sleep(pause)


def _poll_times(interval: Duration, timeout: Duration | None) -> tuple[float, float]:
    pause = max(parse_duration(interval, "interval").total_seconds(), 0.01)
    until = _NEVER if timeout is None else time.monotonic() + parse_duration(timeout, "timeout").total_seconds()
    return pause, until


def _check_poll(run: RealtimeRun, until: float, pause: float) -> None:
    if time.monotonic() + pause > until:
        raise PollTimeout(f"Run {run.id} is still {run.status}.")


# -- following --------------------------------------------------------------------------------------------------------


@overload
def subscribe_to_run(
    run: RunHandle[P, O] | RealtimeRun[P, O], *, signal: Signal | None = None, stop_on_completion: bool = True
) -> Subscription[P, O]: ...
@overload
def subscribe_to_run(
    run: str | Run, *, signal: Signal | None = None, stop_on_completion: bool = True
) -> Subscription[Any, Any]: ...
def subscribe_to_run(
    run: RunArgument, *, signal: Signal | None = None, stop_on_completion: bool = True
) -> Subscription[Any, Any]:
    """Follow one run: its current state, then each newer one; ends after the final one. The loop raises RunNotFound."""
    return Subscription(RunFeed(_id(run), stop_on_completion=stop_on_completion), signal=signal, convert=_typed)


def subscribe_to_runs_with_tag(
    tag: str | Iterable[str], *, signal: Signal | None = None, look_back: Duration | None = None
) -> Subscription[Any, Any]:
    """Follow the runs that carry the tag, or all of several tags. It never ends by itself.

    Begins with the newest 1,000 of them that are not older than `look_back` (default 24 h, the setting FEED_LOOK_BACK).
    A run joins when it is made with the tags, or gets the last of them later. Raises InvalidOption, TooLarge or NotJson
    for tags that no run can have.
    """
    tags = check_tags(tag)
    if not tags:
        raise InvalidOption("Which tag? An empty one follows nothing.")
    window: timedelta = parse_duration(look_back if look_back is not None else app_settings.FEED_LOOK_BACK, "look_back")
    return Subscription(TagFeed(tags, window, app_settings.FEED_MAX_RUNS), signal=signal, convert=_typed)


def subscribe_to_batch(
    batch: BatchHandle | str, *, signal: Signal | None = None, stop_on_completion: bool = False
) -> Subscription[Any, Any]:
    """Follow the runs of a batch. Ends only with `stop_on_completion`, when all are final.

    The loop raises BatchNotFound.
    """
    batch_id = batch if isinstance(batch, str) else batch.id
    return Subscription(BatchFeed(batch_id, stop_on_completion=stop_on_completion), signal=signal, convert=_typed)


# -- changing ---------------------------------------------------------------------------------------------------------


def cancel(run: RunArgument) -> RealtimeRun[Any, Any]:
    """Cancel a run and its children, and return it. A final run comes back unchanged. Raises RunNotFound.

    An async task is cancelled at once; a sync one learns it through `ctx.signal`, and what it still writes is refused.
    """
    run_id = _row(run).id
    level = lifecycle.cancel([run_id])
    while level:  # from the top, so that no level gets new children while the next one is read
        level = [*Run.objects.filter(parent__in=level).values_list("pk", flat=True)]
        lifecycle.cancel(level)
    return retrieve(run_id)


acancel = sync_to_async(cancel)


def replay(run: RunArgument, **overrides: Unpack["ReplayOptions"]) -> RunHandle[Any, Any]:
    """Trigger a new run like this one, in whatever status it is. What is given replaces what it had: `payload`, or any
    trigger option.

    The idempotency key is not repeated, or it would bring the old run. Raises RunNotFound, and what `tasks.trigger`
    raises.
    """
    row = _row(run)
    given = dict(overrides)
    payload = given.pop("payload", row.payload_packet)
    options: dict[str, Any] = {
        "tags": row.tag_names,
        "queue": row.queue,
        "concurrency_key": row.concurrency_key,
        "priority": row.priority,
        "max_attempts": row.max_attempts,
        "is_test": row.is_test,
    }
    if row.ttl:
        options["ttl"] = row.ttl
    if row.max_duration is not None:
        options["max_duration"] = row.max_duration
    options.update(given)
    return triggering.trigger(Request.check(row.task, payload, cast(TriggerOptions, options)))


areplay = sync_to_async(replay)


class ReplayOptions(TriggerOptions, total=False):
    """The options of a trigger, and another payload."""

    payload: Any


def reschedule(run: RunArgument, delay: Duration | datetime) -> RealtimeRun[Any, Any]:
    """Give a DELAYED run another start: a duration from now, or an aware datetime.

    Raises InvalidTransition when the run is not DELAYED (any more), RunNotFound, or InvalidOption.
    """
    wanted = parse_when(delay)
    row = _row(run)
    if not lifecycle.reschedule(row.id, wanted):
        raise InvalidTransition(row.id, retrieve(row.id).status, "rescheduled: only DELAYED runs can be")
    return retrieve(row.id)


areschedule = sync_to_async(reschedule)


def add_tags(run: RunArgument, tags: str | Iterable[str]) -> RealtimeRun[Any, Any]:
    """Add tags to a run, in any status. Raises RunNotFound, TooLarge, NotJson or InvalidOption; then none was
    added.
    """
    _add_tags(_id(run), tags)
    return retrieve(_id(run))


aadd_tags = sync_to_async(add_tags)
