"""What a stream holds, as text: the same for the first rendering and for what elements.js adds."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from realtime_runs.display.text import showable
from realtime_runs.live.stream_reading import read_newest
from realtime_runs.models import StreamName
from realtime_runs.models.stream import OUTPUT

MOST_CHARACTERS: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class StreamText:
    """`next_index`: of the first chunk that is not in the text. `is_cut`: earlier ones are missing."""

    text: str
    next_index: int
    end_reason: str
    is_cut: bool


def newest_text(run_id: str, key: str) -> StreamText:
    page = read_newest(StreamName(run_id, OUTPUT, key), MOST_CHARACTERS)
    text = joined(json.loads(chunk.data) for chunk in page.chunks)
    first = page.chunks[0].index if page.chunks else page.next_index
    is_cut = first > page.restart_index or len(text) > MOST_CHARACTERS
    return StreamText(showable(text[-MOST_CHARACTERS:]), page.next_index, page.end_reason, is_cut)


def joined(chunks: Iterable[Any], *, at_line_start: bool = True) -> str:
    """Texts run on; any other value has a line of its own."""
    parts: list[str] = []
    for chunk in chunks:
        if isinstance(chunk, str):
            part = chunk
        else:
            part = f"{'' if at_line_start else chr(10)}{json.dumps(chunk, ensure_ascii=False, separators=(',', ':'))}\n"
        if part:
            parts.append(part)
            at_line_start = part.endswith("\n")
    return "".join(parts)
