"""Renewing the leases of a worker, from a thread of its own, so that a busy event loop does not look like a dead
worker.

Two clocks are watched. The database's decides who holds a lease. Our own monotonic one tells when a lease must be over
although the database cannot be asked. And an event loop that is stuck for ever gives its leases up, although this
thread is alive.
"""

import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence

from django.db import connections

from realtime_runs.conf import app_settings
from realtime_runs.engine import lifecycle
from realtime_runs.engine.context import Lease

logger = logging.getLogger("realtime_runs.engine")

_LOOP_WARNING_SECONDS = 2.0


class Heartbeat:
    """`leases` is called in this thread; `lost` gets the leases that are gone, in this thread too."""

    def __init__(self, leases: Callable[[], Sequence[Lease]], lost: Callable[[Sequence[Lease]], None]) -> None:
        self._leases = leases
        self._lost = lost
        self._stopped = threading.Event()
        self._loop_ticked_at = time.monotonic()
        self._loop_thread_id = threading.get_ident()
        self._warned = False
        self._renewed_at: dict[Lease, float] = {}
        self._thread = threading.Thread(target=self._run, name="realtime-runs-heartbeat", daemon=True)

    def start(self) -> None:
        """Call it in the thread of the event loop."""
        self._loop_thread_id = threading.get_ident()
        self._thread.start()

    def tick(self) -> None:
        """The event loop is alive."""
        self._loop_ticked_at = time.monotonic()
        self._warned = False

    def stop(self) -> None:
        self._stopped.set()

    def _run(self) -> None:
        try:
            while not self._stopped.wait(min(app_settings.LEASE_SECONDS / 4, 1.0)):
                self._watch_loop()
                self._renew(list(self._leases()))
        finally:
            connections.close_all()

    def _watch_loop(self) -> None:
        blocked = time.monotonic() - self._loop_ticked_at
        if blocked > _LOOP_WARNING_SECONDS and not self._warned:
            self._warned = True
            frame = sys._current_frames().get(self._loop_thread_id)
            stack = "".join(traceback.format_stack(frame)) if frame else "(unknown)"
            logger.warning(
                "The worker's event loop has been blocked for %.1f s; an async task must not block. It is here:\n%s",
                blocked,
                stack,
            )

    def _renew(self, leases: list[Lease]) -> None:
        now = time.monotonic()
        self._renewed_at = {lease: self._renewed_at.get(lease, now) for lease in leases}
        if not leases:
            return
        if now - self._loop_ticked_at > app_settings.LOOP_STALL_SECONDS:
            return  # let the leases end: somebody else should have these runs
        due = [lease for lease in leases if now - self._renewed_at[lease] >= app_settings.LEASE_SECONDS / 4]
        if not due:
            return
        try:
            ours = lifecycle.renew(due)
        except Exception as error:
            logger.warning("The leases could not be renewed; trying again: %s", error)
            connections.close_all()
            # When the database cannot be asked, a lease is over before anybody else can have it.
            over = [lease for lease in due if now - self._renewed_at[lease] >= app_settings.LEASE_SECONDS * 0.9]
            if over:
                self._lost(over)
            return
        for lease in due:
            if lease.run_id in ours:
                self._renewed_at[lease] = now
        if gone := [lease for lease in due if lease.run_id not in ours]:
            self._lost(gone)
