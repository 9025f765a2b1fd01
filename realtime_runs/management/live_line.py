"""One line of a terminal that shows how a run gets on, and is drawn anew in place."""

import shutil
import threading
import time
from typing import Any, Self

from django.core.management.base import OutputWrapper

from realtime_runs.display.elapsed import seconds
from realtime_runs.display.progress import read_progress
from realtime_runs.live.snapshot import RealtimeRun
from realtime_runs.management.output import printable

BAR_WIDTH = 28
DRAW_SECONDS = 0.2
NO_WORKER_AFTER_SECONDS = 3.0
ERASE_TO_END = "\x1b[K"


class LiveLine:
    """Use it as a context manager and `show` each snapshot; the elapsed time ticks by itself in between."""

    def __init__(self, out: OutputWrapper) -> None:
        self._out = out
        self._started = time.monotonic()
        self._run: RealtimeRun[Any, Any] | None = None
        self._is_hidden = False
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="runs-live-line", daemon=True)

    def __enter__(self) -> Self:
        self._ticker.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stopped.set()
        self._ticker.join()
        self._is_hidden = False
        self._draw("\n")

    def show(self, run: RealtimeRun[Any, Any]) -> None:
        self._run = run
        self._draw()

    def hide(self) -> None:
        """Leave the terminal to somebody else, until the end."""
        with self._lock:
            if not self._is_hidden and self._run is not None:
                self._out.write(f"\r{ERASE_TO_END}", ending="")
            self._is_hidden = True

    def _tick(self) -> None:
        while not self._stopped.wait(DRAW_SECONDS):
            self._draw()

    def _draw(self, end: str = "") -> None:
        with self._lock:
            if self._run is None or self._is_hidden:
                return
            line = self.text(self._run, time.monotonic() - self._started)
            # One column less than there is: a full line would wrap, and \r could not get back to its start.
            width = shutil.get_terminal_size().columns - 1
            self._out.write(f"\r{line[:width]}{ERASE_TO_END}{end}", ending="")
            self._out.flush()

    def text(self, run: RealtimeRun[Any, Any], elapsed_seconds: float) -> str:
        parts = [run.task_identifier]
        if progress := read_progress(run.metadata):
            full = int(BAR_WIDTH * progress.percentage / 100)
            parts += ["█" * full + "░" * (BAR_WIDTH - full), f"{progress.percentage:3.0f}%"]
        parts.append(str(run.status))
        if run.is_queued and run.attempt_count == 0 and elapsed_seconds > NO_WORKER_AFTER_SECONDS:
            parts.append("(is a worker running? see manage.py runs_worker)")
        if progress and progress.text:
            parts.append(progress.text)
        parts.append(seconds(1000 * elapsed_seconds))
        if isinstance(note := run.metadata.get("status"), str):
            parts.append(note)
        return printable("  ".join(parts))
