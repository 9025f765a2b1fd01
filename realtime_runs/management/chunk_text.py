"""Chunks of streams as people read them on a terminal."""

import json
from typing import Any

from django.core.management.base import OutputWrapper

from realtime_runs.live.items import StreamRestarted
from realtime_runs.management.output import printable


class ChunkText:
    """Texts run on as they come; every other value has a line of its own. With `labelled`, each line begins with its
    stream.
    """

    def __init__(self, out: OutputWrapper, *, labelled: bool) -> None:
        self._out = out
        self._labelled = labelled
        self._open: str | None = None  # the stream whose text has not come to the end of its line
        self._spaced: set[str] = set()  # streams whose texts bring their own white space

    def show(self, stream: str, chunk: Any) -> None:
        if isinstance(chunk, str):
            self._show_text(stream, chunk.replace("\r\n", "\n").replace("\t", "    "))
        else:
            self._show_line(stream, json.dumps(chunk, ensure_ascii=False))

    def show_restart(self, restarted: StreamRestarted) -> None:
        self._show_line(restarted.stream, f"--- attempt {restarted.attempt} begins anew ---")

    def end_line(self) -> None:
        if self._open is not None:
            self._write("\n")
            self._open = None

    def _show_text(self, stream: str, text: str) -> None:
        if text != text.strip():
            self._spaced.add(stream)
        if self._open != stream:
            self.end_line()
        elif text and stream not in self._spaced:
            self._write(" ")  # these are words
        for line in text.splitlines(keepends=True):
            if self._open is None:
                self._write(self._label(stream))
                self._open = stream
            self._write(printable(line.removesuffix("\n")))
            if line.endswith("\n"):
                self.end_line()

    def _show_line(self, stream: str, text: str) -> None:
        self.end_line()
        self._write(f"{self._label(stream)}{printable(text)}\n")

    def _label(self, stream: str) -> str:
        return f"{printable(stream)}: " if self._labelled else ""

    def _write(self, text: str) -> None:
        self._out.write(text, ending="")
        self._out.flush()
