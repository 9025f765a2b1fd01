"""Events whose data is HTML, for pages that put it where it belongs and know nothing of runs (`?html=1`; htmx)."""

import json
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from django.utils.html import escape

from realtime_runs.display import elements
from realtime_runs.display.chunks import joined
from realtime_runs.display.text import showable
from realtime_runs.live.chunks import Chunk
from realtime_runs.live.snapshot import RealtimeRun
from realtime_runs.models import StreamName
from realtime_runs.wire.encoding import Encoded

_LINE_BREAK: Final = re.compile("\r\n|\r|\n")
_MOST_HELD: Final = 10_000  # elements that a reader is known to show; others are sent again

_encoded: Final = Encoded()


def html_event(name: str, html: str, id: str = "") -> bytes:
    """Each line of the data has a field of its own, and a browser puts them together again."""
    lines = "".join(f"data: {line}\n" for line in _LINE_BREAK.split(html))
    return f"event: {name}\n{lines}{f'id: {id}{chr(10)}' if id else ''}\n".encode()


class RunElements:
    """The elements of the runs that one reader follows. Whole ones, as the template tags render them: their colours
    hang on their attributes.
    """

    def __init__(self, *, names_runs: bool, skipped: Iterable[str] = ()) -> None:
        """`names_runs`: events are called `status-<run>`, not `status`. `skipped`: fields that it does not get."""
        self._names_runs = names_runs
        self._renderers: dict[str, Callable[[RealtimeRun], str]] = {"status": elements.run_status}
        if "metadata" not in skipped:
            self._renderers["progress"] = elements.run_progress
        self._held: OrderedDict[str, bytes] = OrderedDict()

    def events(self, runs: Iterable[RealtimeRun], at: str) -> bytes:
        """Those that look different now. Who is cut off amid them has not got `at`, and gets all of them again."""
        changed = b"".join(
            self._change(f"{kind}-{run.id}" if self._names_runs else kind, run, kind)
            for run in runs
            for kind in self._renderers
        )
        return changed.removesuffix(b"\n") + f"id: {at}\n\n".encode() if changed else b""

    def _change(self, name: str, run: RealtimeRun, kind: str) -> bytes:
        render = self._renderers[kind]
        # Without its version: else each would look different.
        html = _encoded.get((name, run.id, run.version), lambda: html_event(name, render(replace(run, version=0))))
        is_new = self._held.pop(name, None) != html
        self._held[name] = html
        if len(self._held) > _MOST_HELD:
            self._held.popitem(last=False)
        return html if is_new else b""


class StreamHtml:
    """The text of a stream, as it comes: to be put behind what is there."""

    def __init__(self, name: StreamName) -> None:
        self._name = name
        self._at_line_start = True

    def event(self, chunks: Sequence[Chunk]) -> bytes:
        """One for all of these; its id is the index of the last."""
        key = (self._name, chunks[0].index, chunks[-1].index, self._at_line_start)
        event = _encoded.get(key, partial(self._encode, chunks))
        self._at_line_start = _ends_line(chunks[-1])
        return event

    def _encode(self, chunks: Sequence[Chunk]) -> bytes:
        text = joined((json.loads(chunk.data) for chunk in chunks), at_line_start=self._at_line_start)
        return html_event("chunk", escape(showable(text)), str(chunks[-1].index))


def _ends_line(chunk: Chunk) -> bool:
    value: Any = json.loads(chunk.data)
    return not isinstance(value, str) or value.endswith("\n")
