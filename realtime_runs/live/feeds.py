"""What can be followed: the runs that it begins with, those that belong to it, and when it is over."""

from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime, timedelta

from realtime_runs.exceptions import BatchNotFound, RunNotFound
from realtime_runs.ids import is_possible
from realtime_runs.live import reading
from realtime_runs.live.snapshot import RealtimeRun
from realtime_runs.live.topics import Topic, batch_topic, run_topic, tag_topic
from realtime_runs.models import Batch


class Feed:
    """What is followed. Its reads are sync and short; `first` may raise RunNotFound or BatchNotFound."""

    topic: Topic
    is_endless = False  # may hold any number of runs, so that they are never read all at once
    changed_since: datetime | None = None  # of the first list only what changed at that time or later
    is_resumed = False

    def first(self) -> list[RealtimeRun]:
        raise NotImplementedError

    def since(self, when: datetime, limit: int) -> list[RealtimeRun]:
        """The first `limit` that changed at that time or later. Only for endless feeds."""
        raise NotImplementedError

    def contains(self, run: RealtimeRun) -> bool:
        return True

    def is_over(self, versions: "OrderedDict[str, Seen]") -> bool:
        return False


class Seen:
    """The last version of a run that was given to the reader."""

    __slots__ = ("is_final", "version")

    def __init__(self, run: RealtimeRun) -> None:
        self.version = run.version
        self.is_final = run.is_completed


class RunFeed(Feed):
    def __init__(self, run_id: str, *, stop_on_completion: bool = True, is_resumed: bool = False) -> None:
        """`is_resumed`: the reader was here before, so it may begin with what the hub has.

        Raises RunNotFound for an id that no run can have: the hub asks for several runs at once.
        """
        if not is_possible(run_id):
            raise RunNotFound(run_id)
        self.topic = run_topic(run_id)
        self.is_resumed = is_resumed
        self._stop = stop_on_completion

    def first(self) -> list[RealtimeRun]:
        runs = reading.read_runs([self.topic.name])
        if not runs:
            raise RunNotFound(self.topic.name)
        return runs

    def is_over(self, versions: "OrderedDict[str, Seen]") -> bool:
        return self._stop and any(seen.is_final for seen in versions.values())


class TagFeed(Feed):
    """Runs that carry all of the tags; it never ends. Listens to the first tag and drops what lacks the others."""

    is_endless = True

    def __init__(
        self, tags: Sequence[str], look_back: timedelta, most: int, *, changed_since: datetime | None = None
    ) -> None:
        self.topic = tag_topic(tags[0])
        self.changed_since = changed_since
        self._tags = frozenset(tags)
        self._look_back = look_back
        self._most = most

    def first(self) -> list[RealtimeRun]:
        return reading.read_tagged(sorted(self._tags), self._look_back, self._most)

    def since(self, when: datetime, limit: int) -> list[RealtimeRun]:
        return reading.read_tagged_since(when, sorted(self._tags), limit)

    def contains(self, run: RealtimeRun) -> bool:
        return self._tags.issubset(run.tags)


class BatchFeed(Feed):
    """The runs of a batch. With `stop_on_completion` it ends when all of them are final."""

    def __init__(
        self, batch_id: str, *, stop_on_completion: bool = False, changed_since: datetime | None = None
    ) -> None:
        """Raises BatchNotFound for an id that no batch can have: the hub asks for several at once."""
        if not is_possible(batch_id):
            raise BatchNotFound(batch_id)
        self.topic = batch_topic(batch_id)
        self.changed_since = changed_since
        self._stop = stop_on_completion
        self._run_count = -1

    def first(self) -> list[RealtimeRun]:
        counts = Batch.objects.filter(pk=self.topic.name).values_list("run_count", flat=True)
        if not counts:
            raise BatchNotFound(self.topic.name)
        self._run_count = counts[0]
        return reading.read_batch(self.topic.name, self.changed_since)

    def is_over(self, versions: "OrderedDict[str, Seen]") -> bool:
        return self._stop and sum(seen.is_final for seen in versions.values()) >= self._run_count
