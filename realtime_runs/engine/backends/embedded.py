"""The default backend: a worker thread inside the server process, or `manage.py runs_worker`."""

import asyncio
import atexit
import logging
import os
import threading
from collections.abc import Sequence

from realtime_runs.conf import app_settings
from realtime_runs.engine.backends.base import Backend
from realtime_runs.engine.worker import Worker
from realtime_runs.live import bell

logger = logging.getLogger("realtime_runs.engine")


class EmbeddedBackend(Backend):
    """Workers look into the database by themselves; a dispatch only wakes them."""

    def __init__(self) -> None:
        self._forget()
        os.register_at_fork(after_in_child=self._forget)  # a pre-fork server: each child starts its own

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._worker: Worker | None = None

    def dispatch(self, run_ids: Sequence[str]) -> None:
        bell.announce_work(run_ids)

    def start(self) -> None:
        """Start the worker thread of this process, once."""
        with self._lock:
            if self._worker is not None:
                return
            self._worker = Worker()
        # A daemon, because the end of the process must not wait for it before `stop` has told it.
        threading.Thread(target=self._run, args=(self._worker,), name="realtime-runs-worker", daemon=True).start()
        atexit.register(self.stop)

    def _run(self, worker: Worker) -> None:
        try:
            asyncio.run(worker.run(ready=lambda: logger.info("The embedded worker is ready.")))
        except Exception:
            logger.exception("The embedded worker stopped.")

    def stop(self) -> None:
        """Drain and wait for it."""
        with self._lock:
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop()
            worker.wait(app_settings.SHUTDOWN_GRACE_SECONDS + 5)
