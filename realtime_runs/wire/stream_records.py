"""The chunks of a stream as events (wire-protocol 8.3.2): each is JSON text inside of JSON text, made from the bytes
that are stored, which are not parsed.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final

import orjson

from realtime_runs.live.chunks import Chunk
from realtime_runs.models import StreamName
from realtime_runs.models.stream import INPUT
from realtime_runs.wire.encoding import Encoded

_EVENT_BYTES: Final = 128 * 1024  # of chunks in one event, which a server holds until its client has taken it

_encoded: Final = Encoded()


def events(name: StreamName, chunks: Sequence[Chunk]) -> Iterator[bytes]:
    """Consecutive chunks, in as few events as are not too large."""
    for piece in pieces(chunks):
        yield _event(name, piece)


def pieces(chunks: Sequence[Chunk]) -> Iterator[Sequence[Chunk]]:
    """What goes into each event."""
    first = size = 0
    for place, chunk in enumerate(chunks):
        size += len(chunk.data)
        if size > _EVENT_BYTES and place > first:
            yield chunks[first:place]
            first, size = place, len(chunk.data)
    yield chunks[first:]


def _event(name: StreamName, chunks: Sequence[Chunk]) -> bytes:
    # Readers that keep up with a stream get the same chunks at the same time.
    return _encoded.get((name, chunks[0].index, chunks[-1].index), partial(_encode, name.kind == INPUT, chunks))


def _encode(is_input: bool, chunks: Sequence[Chunk]) -> bytes:
    return b'event: batch\ndata: {"records":[%s]}\n\n' % b",".join(_record(is_input, chunk) for chunk in chunks)


def _record(is_input: bool, chunk: Chunk) -> bytes:
    # The official tail takes the JSON text of an input out of a text (wire-protocol 9).
    data = orjson.dumps(chunk.data.decode()) if is_input else chunk.data
    body = b'{"data":%s,"id":%s}' % (data, orjson.dumps(chunk.record_id))
    milliseconds = int(chunk.at.timestamp() * 1000)
    return b'{"seq_num":%d,"timestamp":%d,"headers":[],"body":%s}' % (
        *(chunk.index, milliseconds),
        orjson.dumps(body.decode()),
    )
