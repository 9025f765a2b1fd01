"""The run subscriptions: the shape log of the official clients (wire-protocol 7), and SSE by `Accept`
(live-protocol 2).
"""

import asyncio
import hashlib
import random
import re
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta
from functools import partial
from typing import Any, Final

from realtime_runs.access import rules
from realtime_runs.access.rules import Need
from realtime_runs.conf import app_settings
from realtime_runs.database import readers
from realtime_runs.durations import parse_duration
from realtime_runs.engine.options import check_tags
from realtime_runs.engine.triggering import get_batch
from realtime_runs.exceptions import InvalidInput, InvalidOption
from realtime_runs.live.hub import hub
from realtime_runs.live.positions import FeedPosition
from realtime_runs.wire import shape
from realtime_runs.wire.errors import QueryError
from realtime_runs.wire.frames import BatchSource, Frame, Position, RunSource, Source, TagSource, visible
from realtime_runs.wire.html_events import RunElements, html_event
from realtime_runs.wire.realtime.event_stream import EventStreamConsumer, end, event
from realtime_runs.wire.realtime.lookup import get_run
from realtime_runs.wire.run_frames import RunFrames

_OFFSET: Final = re.compile(r"(-1)|(\d{1,19})_(\d{1,19})", re.ASCII)
_BURST_SECONDS: Final = 0.03  # changes that come so close together travel in one answer
_JITTER: Final = 0.15
_START: Final = b"retry: 1000\n: ok\n\n"
_TAG_REFUSED: Final = re.compile(r'[\x00-\x1f\x7f\\"]')


class RunsConsumer(EventStreamConsumer):
    """One subscription. Subclasses say what is followed, and what that needs."""

    async def source(self) -> tuple[Source, Need, str]:
        """What is followed, what its reader must be allowed to do, and a text that tells it from other
        subscriptions. Raises NotFound or QueryError.
        """
        raise NotImplementedError

    async def get(self) -> None:
        await self.authenticate()
        source, need, name = await self.source()
        await self.check(need)
        if "text/event-stream" in self.headers.get("accept", ""):
            await self._send_events(source, need)
        else:
            await self.while_connected(self._send_shape(source, name))

    # -- the shape log ------------------------------------------------------------------------------------------------

    async def _send_shape(self, source: Source, name: str) -> None:
        offset = _OFFSET.fullmatch(self.query.get("offset", "-1"))
        if offset is None:
            raise QueryError(offset="must be -1, or the electric-offset of an earlier answer")
        names = shape.columns({*self.query.get("skipColumns", "").split(","), *self.principal.skip_columns})
        own = _handle(name)
        if offset[1]:
            frame = await anext(frames := source.frames())
            await frames.aclose()
            await self._send_rows(frame, own, names, "insert", is_live=False)
            return
        handle, _, known = self.query.get("handle", "").partition(".")
        if handle != own:
            await self._send_must_refetch(own)
            return
        try:
            position: Position = int(offset[2]) if source.is_run else FeedPosition.of(int(offset[2]), known)
        except InvalidOption:
            await self._send_must_refetch(own)
            return
        is_live = self.query.get("live") == "true"
        frame = await self._news(source, position, app_settings.LONG_POLL_SECONDS if is_live else 0)
        await self._send_rows(frame, own, names, "update", is_live=is_live)

    async def _news(self, source: Source, position: Position, seconds: float) -> Frame:
        """What is new since the position: at once, or when something comes within these seconds."""
        until = time.monotonic() + min(
            seconds * random.uniform(1 - _JITTER, 1 + _JITTER),  # noqa: S311 so that not all come back at once
            max(self.principal.seconds_left, 0),
        )
        async with aclosing(source.frames(position, pause=_BURST_SECONDS, is_fresh=not seconds)) as frames:
            frame = await anext(frames)
            if not frame.runs and seconds:
                try:
                    async with asyncio.timeout(until - time.monotonic()):
                        frame = await anext(frames, frame)
                        if not frame.runs:  # the run is over, and its reader knows: nothing will come
                            await asyncio.sleep(seconds)
                except TimeoutError:
                    pass
        return frame

    async def _send_rows(
        self, frame: Frame, handle: str, names: tuple[str, ...], operation: str, *, is_live: bool
    ) -> None:
        if isinstance(frame.at, FeedPosition):
            offset, handle = frame.at.microseconds, f"{handle}.{frame.at.known_text}"
        else:
            offset = frame.at
        headers = {
            "Content-Type": "application/json",
            "electric-offset": f"{offset}_0",
            "electric-handle": handle,
            "electric-up-to-date": "",
            "electric-cursor": str(time.time_ns() // 1_000_000),
        }
        if not is_live:
            headers["electric-schema"] = shape.schema(names)
        await self.send_headers(headers=headers)
        await self.send_body(shape.messages(frame.runs, names, operation))

    async def _send_must_refetch(self, handle: str) -> None:
        await self.send_headers(status=409, headers={"Content-Type": "application/json", "electric-handle": handle})
        await self.send_body(shape.MUST_REFETCH)

    # -- Server-Sent Events -------------------------------------------------------------------------------------------

    async def _send_events(self, source: Source, need: Need) -> None:
        given = self.headers.get("last-event-id", "")
        position, is_reset = _position(source, given)
        frames = source.frames(position, pause=_BURST_SECONDS)
        first = await anext(frames)
        if isinstance(position, int) and not first.runs and await self._is_over(position):
            await frames.aclose()
            await self.send_headers(status=204)  # which tells an EventSource not to come back
            await self.send_body(b"")
            return
        if self.query.get("html") == "1":
            events = self._html_events(frames, first, names_runs=not source.is_run)
            denied = html_event("end", "auth")
        else:
            events = self._events(frames, first, position, is_reset=is_reset)
            denied = end("auth")
        await self.while_connected(self.send_events(events, need, first=_START, denied=denied))

    async def _is_over(self, version: int) -> bool:
        """Whether the reader has the final version. The row knows; what the hub has may be older."""
        run = await get_run(self.kwargs["run_id"])
        return run.is_final and run.version <= version

    async def _events(
        self, frames: AsyncGenerator[Frame, None], first: Frame, position: Position | None, *, is_reset: bool
    ) -> AsyncGenerator[bytes, None]:
        encoder = RunFrames(held=position if isinstance(position, int) else 0, skipped=self.principal.skip_columns)
        async with aclosing(frames):
            yield event("runs", encoder.encode(first.runs, reset=is_reset), str(first.at))
            at = first.at
            async for frame in frames:
                at = frame.at
                yield event("runs", encoder.encode(frame.runs), str(at))
        yield end("completed", str(at))

    async def _html_events(
        self, frames: AsyncGenerator[Frame, None], first: Frame, *, names_runs: bool
    ) -> AsyncGenerator[bytes, None]:
        encoder = RunElements(names_runs=names_runs, skipped=self.principal.skip_columns)
        async with aclosing(frames):
            if events := encoder.events(first.runs, str(first.at)):
                yield events
            at = first.at
            async for frame in frames:
                at = frame.at
                if events := encoder.events(frame.runs, str(at)):
                    yield events
        yield html_event("end", "completed", str(at))


class RunConsumer(RunsConsumer):
    """One run."""

    async def source(self) -> tuple[Source, Need, str]:
        run_id = self.kwargs["run_id"]
        known = hub.newest(run_id)
        if known is not None and self.principal.sees_all:
            need = rules.read_known_run(known.id, known.task_identifier, known.tags, known.batch_id)
        else:
            need = rules.read_run(await get_run(run_id))
        return RunSource(run_id), need, f"run-{run_id}"


class TaggedRunsConsumer(RunsConsumer):
    """The runs that carry all of some tags."""

    async def source(self) -> tuple[Source, Need, str]:
        given = self.query.get("tags", "").split(",")
        if not all(given) or any(_TAG_REFUSED.search(tag) for tag in given):
            raise QueryError(tags='one or more tags with commas between them; no control characters, \\ or "')
        try:
            tags = check_tags(given)
        except InvalidInput as error:
            raise QueryError(tags=str(error)) from None
        if not tags:
            raise QueryError(tags="a tag is not blank")
        source = TagSource([*tags], _look_back(self.query.get("createdAt", "")), _visible(self))
        return source, rules.follow_tags(tags), "runs-" + ",".join(tags)


class BatchRunsConsumer(RunsConsumer):
    """The runs of a batch."""

    async def source(self) -> tuple[Source, Need, str]:
        batch = await readers.run(get_batch, self.kwargs["batch_id"])
        return BatchSource(batch.pk, _visible(self)), rules.read_batch(batch.pk), f"batch-{batch.pk}"


def _visible(consumer: RunsConsumer) -> Any:
    """What a user of the site may see of the runs is asked for each of them; who has a token sees all of a feed."""
    principal = consumer.principal
    return None if principal.sees_all else partial(visible, principal)


def _look_back(created_at: str) -> float:
    """How old a run may be, in seconds. What cannot be read means the maximum (wire-protocol 7.3)."""
    longest = parse_duration(app_settings.FEED_LOOK_BACK)
    try:
        wanted = parse_duration(created_at) if created_at else longest
    except InvalidOption:
        wanted = longest
    return min(max(wanted, timedelta(seconds=1)), longest).total_seconds()


def _handle(name: str) -> str:
    """Which subscription it is; the rest of a handle, behind a dot, belongs to the position."""
    return f"{name.split('-')[0]}-{hashlib.sha256(name.encode()).hexdigest()[:20]}"


def _position(source: Source, text: str) -> tuple[Position | None, bool]:
    """From a Last-Event-ID; and whether it cannot be honoured, so that the client should drop what it holds."""
    if not text:
        return None, False
    try:
        if not source.is_run:
            return FeedPosition.parse(text), False
        if text.isascii() and text.isdigit() and len(text) < 19:
            return int(text), False
    except InvalidOption:
        pass
    return None, True
