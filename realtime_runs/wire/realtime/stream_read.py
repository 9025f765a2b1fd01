"""`GET /realtime/v1/streams/{run}/{key}`: a stream, live (wire-protocol 8.3). It is always read as v2."""

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import ClassVar, Final

from realtime_runs.access import rules
from realtime_runs.conf import app_settings
from realtime_runs.database import readers
from realtime_runs.durations import parse_duration
from realtime_runs.engine.writing import check_key
from realtime_runs.exceptions import InvalidInput, StreamGap, StreamTimeout
from realtime_runs.live.chunks import Chunk
from realtime_runs.live.stream_follow import ChunkReader
from realtime_runs.live.stream_reading import read_page
from realtime_runs.models import StreamName
from realtime_runs.models.stream import OUTPUT
from realtime_runs.wire import stream_records
from realtime_runs.wire.encoding import dumps
from realtime_runs.wire.errors import QueryError
from realtime_runs.wire.html_events import StreamHtml, html_event
from realtime_runs.wire.realtime.event_stream import EventStreamConsumer, end, event
from realtime_runs.wire.realtime.lookup import get_run

HEADERS: Final = {"X-Stream-Version": "v2"}

_POSITION: Final = re.compile(r"(?:\d{1,18}-)?(\d{1,18})", re.ASCII)  # an index, or the id of a v1 event
_SECONDS: Final = re.compile(r"\d{1,3}(?:\.\d{1,6})?", re.ASCII)
_LONGEST: Final = 600  # seconds
# Makes the official client come back behind what it has, with a new token if it can get one, or else fail.
_DENIED: Final = event("error", dumps({"error": "The credential is not valid any more"}))


class StreamConsumer(EventStreamConsumer):
    kind: ClassVar[str] = OUTPUT

    async def get(self) -> None:
        await self.authenticate()
        name, timeout, index = self.stream_name(), self._timeout(), self._index()
        run = await get_run(name.run_id)
        need = rules.read_run(run)
        await self.check(need)
        # Found before the answer begins: what the reader does then is behind it, and what is gone gets a status.
        page = await readers.run(read_page, name, index, 1)
        if index is None:
            index = page.next_index
        elif page.first_index > index:
            raise StreamGap(name.run_id, name.key, index, page.first_index)
        reader = ChunkReader(name, _same, start_index=index, timeout=timeout)
        events = _html_events(reader) if self.query.get("html") == "1" else _events(reader)
        # Where "latest" was, for who is cut off before a chunk comes.
        headers = {**HEADERS, "X-Stream-Index": str(index)}
        await self.while_connected(self.send_events(events, need, headers=headers, denied=_DENIED))

    def stream_name(self) -> StreamName:
        """Raises QueryError for a key that no stream can have."""
        try:
            return StreamName(self.kwargs["run_id"], self.kind, check_key(self.kwargs["key"]))
        except InvalidInput as error:
            raise QueryError(key=str(error)) from None

    def _timeout(self) -> float:
        given = self.headers.get("timeout-seconds", "")
        if not given:
            return parse_duration(app_settings.STREAM_TIMEOUT_SECONDS).total_seconds()
        seconds = float(given) if _SECONDS.fullmatch(given) else 0
        if not 1 <= seconds <= _LONGEST:
            raise QueryError(**{"Timeout-Seconds": f"must be a number from 1 to {_LONGEST}"})
        return seconds

    def _index(self) -> int | None:
        """Of the first chunk to send; None: only those that come from now on."""
        if given := self.headers.get("last-event-id", ""):
            position = _POSITION.fullmatch(given)
            if position is None:
                raise QueryError(**{"Last-Event-ID": "must be the index of a chunk"})
            return int(position[1]) + 1
        return None if self.headers.get("x-trigger-stream-start", "").lower() == "latest" else 0


async def _events(reader: ChunkReader[Chunk]) -> AsyncGenerator[bytes, None]:
    """Until the stream ends, which an event says (official clients ignore it), or brought nothing for long."""
    try:
        async with aclosing(reader.pages()) as pages:
            async for chunks in pages:
                for batch in stream_records.events(reader.name, chunks):
                    yield batch
    except StreamTimeout:
        return
    yield end(reader.end_reason)


async def _html_events(reader: ChunkReader[Chunk]) -> AsyncGenerator[bytes, None]:
    text = StreamHtml(reader.name)
    try:
        async with aclosing(reader.pages()) as pages:
            async for chunks in pages:
                for piece in stream_records.pieces(chunks):
                    yield text.event(piece)
    except StreamTimeout:
        return
    yield html_event("end", reader.end_reason)


def _same(chunk: Chunk) -> Chunk:
    return chunk
