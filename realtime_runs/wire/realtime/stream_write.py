"""Writing streams over HTTP, for workers in other languages: with a secret key only (wire-protocol 8.4 to 8.6).

`/realtime/v1/streams/{run}/{self|parent|root}/{key}`: PUT makes the stream, POST pipes lines of JSON into it, HEAD says
how far a pipe came; `…/append` takes one text.
"""

import asyncio
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from realtime_runs.access import rules
from realtime_runs.conf import app_settings
from realtime_runs.database import readers
from realtime_runs.engine.appending import last_sequence
from realtime_runs.engine.codec import Codec
from realtime_runs.engine.writing import Target, check_key, run_id_of
from realtime_runs.exceptions import InvalidInput, NotJson, RunNotFound
from realtime_runs.packets import check_text, parse_result
from realtime_runs.wire.errors import QueryError
from realtime_runs.wire.lines import Lines
from realtime_runs.wire.realtime.base import RealtimeConsumer
from realtime_runs.wire.realtime.lookup import find_run

_INDEX: Final = re.compile(r"\d{1,15}", re.ASCII)
_MOST_LINES: Final = 500  # in one write
_LARGE: Final = 64 * 1024  # bytes; what takes longer to parse must not keep the event loop


class _WritingConsumer(RealtimeConsumer):
    is_open_to_pages = False

    async def target(self) -> Target:
        """The stream, for who may write it. Raises RunNotFound and QueryError too."""
        await self.authenticate()
        run = await find_run(self.kwargs["run_id"])
        await self.check(rules.only_with_key("write", run))
        if run is None:
            raise RunNotFound(self.kwargs["run_id"])
        try:
            return Target(check_key(self.kwargs["key"]), run_id_of(run, self.kwargs["target"]))
        except InvalidInput as error:
            raise QueryError(key=str(error)) from None

    def header(self, name: str, longest: int) -> str:
        """The text of a header that becomes a part of a row, or an empty one. Raises QueryError."""
        text: str = self.headers.get(name.lower(), "")
        try:
            check_text(text, "It")
        except NotJson as error:
            raise QueryError(**{name: str(error)}) from None
        if len(text) > longest:
            raise QueryError(**{name: f"must have at most {longest} characters"})
        return text


class StreamWriteConsumer(_WritingConsumer):
    async def put(self) -> None:
        target = await self.target()
        await target.awrite(target.append([]))
        await self.send_json({"version": "v1"}, status=202)

    async def post(self) -> None:
        """Each line is a chunk, stored when it has come; also when the body breaks off later, or has a bad line. A line
        that this client has sent before is not stored again.
        """
        target = await self.target()
        pipe = _Pipe(target, self._client(), self._first_index())
        lines = Lines()
        async for part in self.body_parts():
            await pipe.write(lines.take(part))
            lines.check(app_settings.MAX_CHUNK_BYTES, "MAX_CHUNK_BYTES")
        await pipe.write(lines.rest())
        await self.send_headers(headers={"Content-Length": "0"})
        await self.send_body(b"")

    async def head(self) -> None:
        target, client = await self.target(), self._client()
        last = await readers.run(last_sequence, target.name, client) if client else -1
        await self.send_headers(headers={"X-Last-Chunk-Index": str(last), "Content-Length": "0"})
        await self.send_body(b"")

    def _client(self) -> str:
        return self.header("X-Client-Id", 64)

    def _first_index(self) -> int:
        given = self.headers.get("x-resume-from-chunk") or "0"
        if not _INDEX.fullmatch(given):
            raise QueryError(**{"X-Resume-From-Chunk": "must be the number of a line, from 0"})
        return int(given)


class _Pipe:
    """Stores the lines of one client; what it numbered as it was told."""

    def __init__(self, target: Target, client: str, next_index: int) -> None:
        self._target = target
        self._client = client
        self._next_index = next_index
        self._codec: Codec[Any] = Codec(Any, target.name.key)

    async def write(self, lines: Sequence[bytes]) -> None:
        """Returns when they are committed, so nobody sends faster than we store. Raises InvalidInput, StreamClosed."""
        for some in _portions(lines):
            is_large = sum(map(len, some)) > _LARGE
            chunks, error = await asyncio.to_thread(self._encode, some) if is_large else self._encode(some)
            if chunks:
                await self._target.awrite(self._target.append(chunks, **self._numbers(len(chunks))))
            self._next_index += len(chunks)
            if error is not None:
                raise error

    def _encode(self, lines: Sequence[bytes]) -> tuple[list[bytes], InvalidInput | None]:
        """Their chunks, up to the first that is wrong, and what is wrong with it."""
        chunks: list[bytes] = []
        for index, line in enumerate(lines, self._next_index):
            try:
                chunks.append(self._codec.encode(parse_result(_text(line, f"Chunk {index}"), f"Chunk {index}")))
            except InvalidInput as error:
                return chunks, error
        return chunks, None

    def _numbers(self, count: int) -> dict[str, Any]:
        if not self._client:
            return {}
        return {"producer": self._client, "sequences": [*range(self._next_index, self._next_index + count)]}


class StreamAppendConsumer(_WritingConsumer):
    async def post(self) -> None:
        """The body is a text, whatever its content type says."""
        target, record_id = await self.target(), self.header("X-Part-Id", 255)
        text = _text(await self.read_body(app_settings.MAX_CHUNK_BYTES), "The body")
        chunk = Codec[str](str, target.name.key).encode(text)
        await target.awrite(target.append([chunk], record_id=record_id))
        await self.send_json({"ok": True})


def _portions(lines: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(lines), _MOST_LINES):
        yield lines[start : start + _MOST_LINES]


def _text(data: bytes, what: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidInput(f"{what} is not UTF-8") from None
