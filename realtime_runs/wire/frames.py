"""Runs as their readers get them: what is new together, and the position behind it. For the shape log and for SSE."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime

from realtime_runs.access.principals import Principal
from realtime_runs.conf import app_settings
from realtime_runs.database import readers
from realtime_runs.durations import parse_duration
from realtime_runs.live import reading
from realtime_runs.live.feeds import BatchFeed, Feed, RunFeed, TagFeed
from realtime_runs.live.follow import Subscription
from realtime_runs.live.positions import FeedPosition, FeedTracker, RunTracker, Tracker
from realtime_runs.live.snapshot import RealtimeRun
from realtime_runs.models import Run

Position = int | FeedPosition
See = Callable[[list[RealtimeRun]], list[RealtimeRun]]  # those that this reader may see; may query the database


@dataclass(frozen=True, slots=True)
class Frame:
    """New versions of runs, oldest change first; `at` is the position of who has them. The first may be empty."""

    runs: list[RealtimeRun]
    at: Position


class Source:
    """What is followed over the wire: one run, tags or a batch. `see` filters what a user of the site may see."""

    is_run = False

    def __init__(self, see: See | None = None) -> None:
        self._see = see

    def _feed(self, position: Position | None, is_fresh: bool) -> Feed:
        raise NotImplementedError

    async def _tracker(self, position: Position | None) -> Tracker:
        if isinstance(position, int):
            return RunTracker(position)
        return FeedTracker(await readers.run(reading.read_horizon), position)

    async def frames(
        self, position: Position | None = None, *, pause: float = 0, is_fresh: bool = False
    ) -> AsyncGenerator[Frame, None]:
        """From the position on, or from the beginning. The first frame comes at once, the others with news.

        `is_fresh`: the first is what the database has, not what a bell last told: for who asks once and goes.
        The end, where there is one, is the end of the run. Raises RunNotFound or BatchNotFound.
        """
        is_first = True
        while True:
            tracker = await self._tracker(position)
            subscription = Subscription(self._feed(position, is_fresh), convert=_same)
            async with aclosing(subscription.pages(pause=pause)) as pages:
                async for runs in pages:
                    new = tracker.take(runs)
                    if self._see is not None and new:
                        new = await readers.run(self._see, new)
                    if new or is_first:
                        yield Frame(new, tracker.position)
                    is_first = False
                    if tracker.is_full:
                        break
                else:
                    return
            position = tracker.position


class RunSource(Source):
    is_run = True

    def __init__(self, run_id: str) -> None:
        super().__init__()
        self._run_id = run_id

    def _feed(self, position: Position | None, is_fresh: bool) -> Feed:
        return RunFeed(self._run_id, is_resumed=bool(position) and not is_fresh)

    async def _tracker(self, position: Position | None) -> Tracker:
        return RunTracker(position if isinstance(position, int) else 0)


class TagSource(Source):
    def __init__(self, tags: list[str], look_back: float, see: See | None) -> None:
        """`look_back` in seconds."""
        super().__init__(see)
        self._tags = tags
        self._look_back = parse_duration(look_back)

    def _feed(self, position: Position | None, is_fresh: bool) -> Feed:
        return TagFeed(self._tags, self._look_back, app_settings.FEED_MAX_RUNS, changed_since=_since(position))


class BatchSource(Source):
    def __init__(self, batch_id: str, see: See | None) -> None:
        super().__init__(see)
        self._batch_id = batch_id

    def _feed(self, position: Position | None, is_fresh: bool) -> Feed:
        return BatchFeed(self._batch_id, changed_since=_since(position))


def visible(principal: Principal, runs: list[RealtimeRun]) -> list[RealtimeRun]:
    """What a user of the site may see of the runs of a feed; the policy is asked. Queries the database."""
    ids = [run.id for run in runs]
    seen = set(principal.visible(Run.objects.filter(pk__in=ids)).values_list("pk", flat=True))
    return [run for run in runs if run.id in seen]


def _since(position: Position | None) -> datetime | None:
    return position.since if isinstance(position, FeedPosition) else None


def _same(run: RealtimeRun) -> RealtimeRun:
    return run
