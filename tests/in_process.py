"""A worker on an event loop of its own thread, as in a server, for tests that are quicker without a process."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from realtime_runs.engine.backends.base import Backend
from realtime_runs.engine.worker import Worker


@contextmanager
def worker_in_thread() -> Iterator[None]:
    """Drained at the end. REALTIME_RUNS must name the embedded backend."""
    ready = threading.Event()
    made: list[Worker] = []

    def work() -> None:
        async def run() -> None:
            made.append(Worker())
            await made[0].run(ready=ready.set)

        asyncio.run(run())

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert ready.wait(20)
    try:
        yield
    finally:
        made[0].stop()
        assert made[0].wait(20)
        thread.join(10)


class IdleBackend(Backend):
    """Runs stay queued, also in a process that serves."""

    def dispatch(self, run_ids: Sequence[str]) -> None:
        pass
