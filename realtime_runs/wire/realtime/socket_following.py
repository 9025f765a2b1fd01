"""What a subscription of a socket follows, as the frames that it sends: state of runs, or the chunks of a stream."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

from realtime_runs.access import rules
from realtime_runs.access.rules import Need
from realtime_runs.conf import app_settings
from realtime_runs.database import readers
from realtime_runs.durations import parse_duration
from realtime_runs.engine.options import check_tags
from realtime_runs.engine.triggering import get_batch
from realtime_runs.engine.writing import check_key
from realtime_runs.exceptions import InvalidOption, NotFound, StreamGap
from realtime_runs.live.chunks import Chunk
from realtime_runs.live.hub import hub
from realtime_runs.live.positions import FeedPosition
from realtime_runs.live.snapshot import RealtimeRun
from realtime_runs.live.stream_follow import ChunkReader
from realtime_runs.live.stream_reading import read_page
from realtime_runs.models import Run, StreamName
from realtime_runs.models.stream import OUTPUT
from realtime_runs.wire import chunk_frames
from realtime_runs.wire.encoding import dumps
from realtime_runs.wire.frames import BatchSource, Position, RunSource, See, Source, TagSource, visible
from realtime_runs.wire.packet_urls import PacketUrls
from realtime_runs.wire.realtime.socket_caller import Caller
from realtime_runs.wire.realtime.socket_frames import (
    BadFrame,
    BatchTopic,
    RunTopic,
    StreamTopic,
    Subscribe,
    TagTopic,
)
from realtime_runs.wire.run_frames import RunFrames

_BURST_SECONDS: Final = 0.03  # changes that come so close together travel in one frame
_OF_A_RUN: Final = ("closed", "error")  # ends of a stream that came before its run's

Bodies = AsyncGenerator[tuple[str, bytes], None]


class Gone(Exception):
    """What was followed, or the beginning of it, is not kept any more. `at`: where one could go on."""

    def __init__(self, at: int | None = None) -> None:
        self.at = at
        super().__init__()


class Following:
    """One subscription's view. `open` first; then `bodies` until they end, for the reason in `end`."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self.end: dict[str, Any] = {}

    async def open(self) -> None:
        """Find it, for who may read it. Raises NotFound, Forbidden or InvalidInput."""
        raise NotImplementedError

    async def need(self) -> Need:
        """What its reader must be allowed to do, as of now."""
        raise NotImplementedError

    def bodies(self) -> Bodies:
        """The type and the other fields of each frame, as JSON without its braces. Raises Gone."""
        raise NotImplementedError

    def ack(self, at: int) -> bool:
        """Whether this says something new. Raises BadFrame."""
        return False


class _OfRun:
    """The right to read one run."""

    def __init__(self, caller: Caller, run_id: str) -> None:
        self._caller = caller
        self._run_id = run_id
        self.row: Run | None = None

    def known(self) -> RealtimeRun | None:
        """The run, if this process follows it and its row is not needed."""
        return hub.newest(self._run_id) if self._caller.principal.sees_all else None

    async def find(self) -> None:
        """Raises RunNotFound or Forbidden."""
        self.row = await self._caller.find_run(self._run_id, lambda run: rules.read_run_or_none(self._run_id, run))

    async def need(self) -> Need:
        known = self.known()
        if known is not None:
            return rules.read_known_run(known.id, known.task_identifier, known.tags, known.batch_id)
        if self.row is None or not self._caller.principal.sees_all:
            await self.find()
        assert self.row is not None  # noqa: S101 find sets it
        return rules.read_run(self.row)

    async def check(self) -> None:
        if self.known() is None:
            await self.find()
        elif not await self._caller.may(await self.need()):
            await self.find()  # which knows what to answer


class RunsFollowing(Following):
    """State of one run, of the runs with some tags, or of a batch."""

    def __init__(self, caller: Caller, frame: Subscribe, urls: PacketUrls) -> None:
        super().__init__(caller)
        self._to = frame.to
        self._since = frame.since
        self._urls = urls
        self._run = _OfRun(caller, frame.to.run_id) if isinstance(frame.to, RunTopic) else None
        self._is_reset = False

    async def open(self) -> None:
        position: Position | None = None
        see: See | None = None if self._caller.principal.sees_all else self._see
        if self._run is not None:
            position = await self._open_run(self._run)
        elif self._since not in (None, ""):
            try:
                position = FeedPosition.parse(str(self._since))
            except InvalidOption:
                self._is_reset = True
        if isinstance(self._to, TagTopic):
            tags = check_tags(self._to.tags)
            if len(tags) < len(set(self._to.tags)):
                raise InvalidOption("A tag is not blank.")
            self._source: Source = TagSource([*tags], _look_back(), see)
        elif isinstance(self._to, BatchTopic):
            self._source = BatchSource(self._to.batch_id, see)
        elif isinstance(self._to, RunTopic):
            self._source = RunSource(self._to.run_id)
        if self._run is None:
            await self._caller.check(await self.need())
        if isinstance(self._to, BatchTopic):
            await readers.run(get_batch, self._to.batch_id)
        self._position = position

    async def _open_run(self, run: _OfRun) -> int | None:
        await run.check()
        since, known = self._since, run.known()
        if since is None:
            return None
        if isinstance(since, str) or since < 0:
            self._is_reset = True
            return None
        if known is None or known.version < since:  # the row knows; what the hub has may be older
            await run.find()
            assert run.row is not None  # noqa: S101 find sets it
            version = run.row.version
        else:
            version = known.version
        self._is_reset = version < since
        return None if self._is_reset else since

    async def need(self) -> Need:
        if self._run is not None:
            return await self._run.need()
        if isinstance(self._to, TagTopic):
            return rules.follow_tags(self._to.tags)
        assert isinstance(self._to, BatchTopic)  # noqa: S101 the only one left
        return rules.read_batch(self._to.batch_id)

    async def bodies(self) -> Bodies:
        at: Position | str = "" if self._position is None else self._position
        held = self._position if isinstance(self._position, int) else 0
        encoder = RunFrames(held=held, skipped=self._caller.principal.skip_columns, packet_urls=self._urls)
        flags = b',"reset":true' if self._is_reset else b""
        is_begun = False
        try:
            async with aclosing(self._source.frames(self._position, pause=_BURST_SECONDS)) as frames:
                async for frame in frames:
                    for runs, is_last in encoder.pages(frame.runs):
                        at = frame.at if is_last else at
                        live = b"true" if is_last else b"false"
                        yield "runs", b'"at":%s,%s,"live":%s%s' % (_json(at), runs, live, flags)
                        is_begun, flags = True, b""
        except NotFound:
            raise Gone if is_begun else NotFound(str(self._to)) from None
        self.end = {"at": at if isinstance(at, int | str) else str(at), "reason": "completed"}

    def _see(self, runs: list[RealtimeRun]) -> list[RealtimeRun]:
        return visible(self._caller.principal, runs)


class StreamFollowing(Following):
    """Chunks of a stream, each once and in order; with a `window` never more than so many that are not acknowledged."""

    def __init__(self, caller: Caller, frame: Subscribe, topic: StreamTopic) -> None:
        super().__init__(caller)
        self._run = _OfRun(caller, topic.run_id)
        self._topic = topic
        self._start = frame.since if isinstance(frame.since, int) else 0
        self._window = frame.window
        self._sent = self._acked = self._start
        self._has_room = asyncio.Event()

    async def open(self) -> None:
        self._name = StreamName(self._topic.run_id, OUTPUT, check_key(self._topic.key))
        await self._run.check()

    async def need(self) -> Need:
        return await self._run.need()

    async def bodies(self) -> Bodies:
        page = await readers.run(read_page, self._name, self._start, 1)
        if page.next_index <= self._start and not page.end_reason:
            yield "chunks", b'"at":%d,"chunks":[],"live":true' % self._start
        reader = ChunkReader(self._name, _same, start_index=self._start, timeout=None)
        try:
            async with aclosing(reader.pages()) as pages:
                async for chunks in pages:
                    rest = chunks
                    while rest:
                        count = chunk_frames.how_many(rest, await self._room(rest[0].index))
                        body = chunk_frames.encode(self._name, rest[:count])
                        rest = rest[count:]
                        live = b"false" if rest or not reader.is_live else b"true"
                        self._sent = reader.next_index - len(rest)
                        yield "chunks", b'%s,"live":%s' % (body, live)
        except StreamGap as gap:
            raise Gone(gap.first_index) from None
        reason = "closed" if reader.end_reason in _OF_A_RUN else "completed"
        self.end = {"at": reader.next_index, "reason": reason}

    async def _room(self, index: int) -> int:
        """How many chunks may go now; waits until it is at least one."""
        if self._window is None:
            return 1000
        if self._acked >= self._sent:
            self._sent = self._acked = max(index, self._acked)  # a new attempt may have left out some
        while (room := self._window - (self._sent - self._acked)) < 1:
            self._has_room.clear()
            await self._has_room.wait()
        return room

    def ack(self, at: int) -> bool:
        if at > self._sent:
            raise BadFrame
        is_new = self._window is not None and at > self._acked
        if is_new:
            self._acked = at
            self._has_room.set()
        return is_new


def follow(caller: Caller, frame: Subscribe, urls: PacketUrls) -> Following:
    if isinstance(frame.to, StreamTopic):
        return StreamFollowing(caller, frame, frame.to)
    return RunsFollowing(caller, frame, urls)


def _look_back() -> float:
    return parse_duration(app_settings.FEED_LOOK_BACK).total_seconds()


def _json(at: Position | str) -> bytes:
    return dumps(str(at) if isinstance(at, FeedPosition) else at)


def _same(chunk: Chunk) -> Chunk:
    return chunk
