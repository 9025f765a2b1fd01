"""The chunks of a stream as frames of the socket (live-protocol 1), made from the bytes that are stored."""

from collections.abc import Sequence
from functools import partial
from typing import Final

from realtime_runs.live.chunks import Chunk
from realtime_runs.models import StreamName
from realtime_runs.wire.encoding import Encoded

_FRAME_BYTES: Final = 128 * 1024  # of chunks

_encoded: Final = Encoded()


def how_many(chunks: Sequence[Chunk], most: int) -> int:
    """How many of the first chunks go into one frame; one that is too large goes alone."""
    size = 0
    for place, chunk in enumerate(chunks[:most]):
        size += len(chunk.data) + 1
        if size > _FRAME_BYTES and place:
            return place
    return min(len(chunks), most)


def encode(name: StreamName, chunks: Sequence[Chunk]) -> bytes:
    """`"at":…,"chunks":[…]`; readers that keep up with a stream get the same chunks at the same time."""
    return _encoded.get((name, chunks[0].index, chunks[-1].index), partial(_encode, chunks))


def _encode(chunks: Sequence[Chunk]) -> bytes:
    return b'"at":%d,"chunks":[%s]' % (chunks[-1].index + 1, b",".join(chunk.data for chunk in chunks))
