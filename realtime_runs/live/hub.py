"""The one listener of a process. Joins each followed topic once, reads what changed once, and hands it to every reader.

All state belongs to the live loop; other threads only schedule calls on it. Rows are read in one query for everything
that changed since the last one, so readers cost no queries and topics are read by one reader at a time, in order.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Final

from django.db import Error

from realtime_runs.conf import app_settings
from realtime_runs.database import readers
from realtime_runs.live import bell, reading
from realtime_runs.live.chunks import Appended
from realtime_runs.live.layer import carrying_layer
from realtime_runs.live.layer_groups import LayerGroups
from realtime_runs.live.listeners import Listener, WorkListener
from realtime_runs.live.loop import live_loop
from realtime_runs.live.snapshot import RealtimeRun
from realtime_runs.live.stream_hub import StreamHub
from realtime_runs.live.tails import TailListener
from realtime_runs.live.topics import Topic, batch_topic, run_topic, tag_topic, token_topic
from realtime_runs.models import StreamName

logger = logging.getLogger("realtime_runs.live")

_LONG_LOOK_EVERY: Final = 10  # looks; a long one reaches back beyond the one before, see reading.read_horizon
_MOST_REMEMBERED: Final = 20_000  # versions remembered by the backstop of tag and batch feeds
_RETRY_SECONDS: Final = 1.0
_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)


class Hub:
    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._topics: dict[Topic, set[Listener]] = {}
        self._joining: dict[Topic, asyncio.Task[None]] = {}
        # Monotonic time at which the last reader left; the group is still joined.
        self._left_at: dict[Topic, float] = {}
        # The last that was read of each run that is followed, or was a moment ago.
        self._newest: dict[str, RealtimeRun] = {}
        self._changed: set[str] = set()
        self._streams = StreamHub(self._wake_readers)
        self._has_changes: asyncio.Event | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._groups: LayerGroups | None = None  # None: no layer reaches other processes
        self._horizon = _LONG_AGO
        self._remembered: dict[str, int] = {}

    # -- called from any thread ---------------------------------------------------------------------------------------

    def join(self, listener: Listener) -> "Future[None]":
        """Start to listen. Once the future is done, no later change is missed; so read the table after that."""
        live_loop.call(self._add, listener)  # in line with `leave`, whatever becomes of the future
        return live_loop.start(self._joined(listener.topic))

    def leave(self, listener: Listener) -> None:
        live_loop.call(self._leave, listener)

    def receive(self, bells: bell.Bells) -> None:
        """A bell of this process. Cheap when nobody here follows any of its topics."""
        if self._topics and any(topic in self._topics for topic in bells):
            live_loop.call(self._hear, bells)

    def receive_chunks(self, news: Sequence[Appended]) -> None:
        """What was appended in this process."""
        if self._streams.reads_any(news):
            live_loop.call(self._streams.hear, news)

    def newest(self, run_id: str) -> RealtimeRun | None:
        """What a reader that has joined, and was here before, may begin with instead of reading the table.

        It may be as late as any bell: what bells have missed, the backstop finds.
        """
        return self._newest.get(run_id)

    def note(self, runs: list[RealtimeRun]) -> None:
        """What a reader that has joined has read."""
        live_loop.call(self._remember, runs)

    @property
    def listener_count(self) -> int:
        return sum(map(len, list(self._topics.values())))

    @property
    def topic_count(self) -> int:
        """Topics with a reader; those that only linger do not count."""
        return sum(1 for listeners in list(self._topics.values()) if listeners)

    # -- on the live loop ---------------------------------------------------------------------------------------------

    def _add(self, listener: Listener) -> None:
        self._start()
        topic = listener.topic
        self._left_at.pop(topic, None)
        if topic not in self._topics:
            self._topics[topic] = set()
            self._joining[topic] = asyncio.get_running_loop().create_task(self._join(topic))
        self._topics[topic].add(listener)
        if isinstance(listener, TailListener):
            self._streams.join(listener)

    async def _joined(self, topic: Topic) -> None:
        if joining := self._joining.get(topic):
            await asyncio.shield(joining)  # others wait for it too

    async def _join(self, topic: Topic) -> None:
        try:
            if topic.kind in ("tag", "batch"):
                horizon = await readers.run(reading.read_horizon)
                self._horizon = horizon if self._horizon == _LONG_AGO else min(self._horizon, horizon)
            if self._groups is not None:
                await self._groups.join(topic)
        finally:
            self._joining.pop(topic, None)

    def _leave(self, listener: Listener) -> None:
        listeners = self._topics.get(listener.topic, set())
        if isinstance(listener, TailListener) and listener in listeners:
            self._streams.leave(listener)
        listeners.discard(listener)
        if not listeners and listener.topic in self._topics:
            # Long polls come back at once; leaving and joining the group each time would cost two calls a poll.
            self._left_at[listener.topic] = time.monotonic()

    def _forget(self, topic: Topic) -> None:
        self._topics.pop(topic, None)
        self._left_at.pop(topic, None)
        if topic.kind == "run":
            self._newest.pop(topic.name, None)
        if not any(topic.kind in ("tag", "batch") for topic in self._topics):
            self._horizon = _LONG_AGO
            self._remembered.clear()

    def _start(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        inherited = self._tasks  # after a fork: they belong to the parent's loop; forgotten, they would complain
        self._reset()
        self._inherited = inherited
        self._loop = loop
        self._has_changes = asyncio.Event()
        self._tasks = [
            loop.create_task(self._read_changes()),
            loop.create_task(self._backstop()),
            loop.create_task(self._streams.run()),
        ]
        if (layer := carrying_layer()) is not None:
            self._groups = LayerGroups(layer, self._topics.keys(), self._hear_others)
            self._tasks.append(loop.create_task(self._groups.run()))

    def _hear(self, bells: bell.Bells) -> None:
        for topic, versions in bells.items():
            if topic.kind == "run" and topic.name in self._newest:
                self._mark(versions)
            for listener in self._topics.get(topic, ()):
                if isinstance(listener, WorkListener):
                    listener.hint(list(versions))
                else:
                    self._mark(versions)
                    break

    def _hear_others(self, topic: Topic, versions: dict[str, int], tails: dict[str, int]) -> None:
        """A bell of another process."""
        self._hear({topic: versions})
        self._streams.hear_counts(topic.name, tails)

    def _mark(self, run_ids: Iterable[str]) -> None:
        self._changed.update(run_ids)
        if self._changed and self._has_changes is not None:
            self._has_changes.set()

    async def _read_changes(self) -> None:
        assert self._has_changes is not None  # noqa: S101 set by _start
        while True:
            await self._has_changes.wait()
            self._has_changes.clear()
            changed, self._changed = self._changed, set()
            try:
                self._deliver(await readers.run(reading.read_runs, list(changed)))
            except Exception:
                logger.warning("Could not read changed runs; trying again.", exc_info=True)
                await asyncio.sleep(_RETRY_SECONDS)
                self._mark(changed)

    def _remember(self, runs: list[RealtimeRun]) -> None:
        for run in runs:
            known = self._newest.get(run.id)
            if run_topic(run.id) in self._topics and (known is None or known.version < run.version):
                self._newest[run.id] = run

    def _deliver(self, runs: list[RealtimeRun]) -> None:
        self._remember(runs)
        self._wake(listener for listener, its_runs in self._sorted_by_listener(runs) if listener.offer(its_runs))

    def _wake(self, woken: Iterable[Listener]) -> None:
        by_loop: defaultdict[asyncio.AbstractEventLoop | None, list[Listener]] = defaultdict(list)
        for listener in woken:
            by_loop[listener.loop].append(listener)
        for loop, listeners in by_loop.items():
            try:
                if loop is None:
                    _wake(listeners)
                else:
                    loop.call_soon_threadsafe(_wake, listeners)  # one call for all listeners of a loop
            except RuntimeError:  # the reader's loop is closed: it will not come back
                for listener in listeners:
                    self._leave(listener)

    def _sorted_by_listener(self, runs: list[RealtimeRun]) -> list[tuple[Listener, list[RealtimeRun]]]:
        found: defaultdict[Listener, list[RealtimeRun]] = defaultdict(list)
        for run in runs:
            topics = [run_topic(run.id), *map(tag_topic, run.tags)]
            if run.batch_id:
                topics.append(batch_topic(run.batch_id))
            for topic in topics:
                for listener in self._topics.get(topic, ()):
                    if listener.reads_rows:
                        found[listener].append(run)
        return list(found.items())

    def _wake_readers(self, names: Collection[StreamName]) -> None:
        self._wake(
            listener
            for run_id in {name.run_id for name in names}
            for listener in self._topics.get(run_topic(run_id), ())
            if isinstance(listener, TailListener) and listener.name in names
        )

    # -- the backstop: what bells may have missed ---------------------------------------------------------------------

    async def _backstop(self) -> None:
        turn = 0
        while True:
            layer_works = self._groups is not None and self._groups.works
            await asyncio.sleep(
                app_settings.BACKSTOP_WITH_LAYER_SECONDS if layer_works else app_settings.BACKSTOP_SECONDS
            )
            turn += 1
            self._forget_left()
            try:
                await self._look(long=turn % _LONG_LOOK_EVERY == 0)
                if self._groups is not None and turn % _LONG_LOOK_EVERY == 0:
                    await self._groups.join_all()
            except Error:
                logger.warning("The backstop could not read the database; trying again.", exc_info=True)
            except Exception:
                logger.exception("The backstop failed; trying again.")

    async def _look(self, *, long: bool) -> None:
        if runs := self._followed("run"):
            versions = await readers.run(reading.read_versions, runs)
            self._mark(
                run_id
                for run_id, version in versions.items()
                if any(not listener.knows(run_id, version) for listener in self._topics.get(run_topic(run_id), ()))
            )
            self._tell_readers_of(set(runs) - versions.keys())
        if tokens := self._followed("token"):
            self._hear({token_topic(name): {name: 0} for name in await readers.run(reading.read_settled, tokens)})
        await self._streams.look()
        if self._followed("tag", "batch"):
            horizon = await readers.run(reading.read_horizon)
            since = await readers.run(reading.read_horizon, long=True) if long else self._horizon
            # Asked after the horizon: a feed that begins later reads for itself what is older than that.
            tags, batches = self._followed("tag"), self._followed("batch")
            changed = await readers.run(reading.read_changed, min(since, self._horizon), tags, batches)
            self._mark(run_id for run_id, version in changed.items() if self._remembered.get(run_id, 0) < version)
            if len(self._remembered) > _MOST_REMEMBERED:
                self._remembered.clear()
            self._remembered.update(changed)
            self._horizon = horizon

    def _tell_readers_of(self, gone: Iterable[str]) -> None:
        """Runs that were removed. (Or are not committed yet: then their readers find them when they look.)"""
        listeners = [one for run_id in gone for one in self._topics.get(run_topic(run_id), ()) if one.reads_rows]
        for listener in listeners:
            listener.look_again()
        self._wake(listeners)

    def _followed(self, *kinds: str) -> list[str]:
        """Names of the topics of these kinds that somebody reads."""
        return [topic.name for topic, listeners in self._topics.items() if listeners and topic.kind in kinds]

    def _forget_left(self) -> None:
        long_ago = time.monotonic() - app_settings.LINGER_SECONDS
        for topic in [topic for topic, left_at in self._left_at.items() if left_at < long_ago]:
            self._forget(topic)
            if self._groups is not None:
                leaving = asyncio.get_running_loop().create_task(self._groups.leave(topic))
                self._tasks.append(leaving)
                leaving.add_done_callback(self._tasks.remove)


def _wake(listeners: list[Listener]) -> None:
    for listener in listeners:
        listener.wake()


hub: Final = Hub()
bell.connect(hub.receive, hub.receive_chunks)
