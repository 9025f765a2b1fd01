import asyncio
import os
import signal
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from realtime_runs.engine import registry
from realtime_runs.engine.worker import Worker
from realtime_runs.management.base import OUR_CHECKS


class Command(BaseCommand):
    help = (
        "Executes runs, in a process of its own. Start as many as you like on one database. "
        "SIGTERM and Ctrl-C drain: no new runs, running ones get SHUTDOWN_GRACE_SECONDS, the rest is queued again."
    )
    requires_system_checks = OUR_CHECKS

    def handle(self, *args: Any, **options: Any) -> None:
        if not registry.ids():
            raise CommandError("There are no tasks. Declare one in the tasks.py of an installed app.")
        asyncio.run(self._work())

    async def _work(self) -> None:
        worker = Worker()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, worker.stop)
        await worker.run(ready=self._say_ready)
        self.stdout.write("Drained.")
        self.stdout.flush()
        if not worker.is_clean:
            # Python would wait for the threads of functions that do not stop. Their runs are back in the queue.
            os._exit(0)

    def _say_ready(self) -> None:
        self.stdout.write(f"Worker ready, {len(registry.ids())} tasks: {', '.join(sorted(registry.ids()))}")
        self.stdout.flush()
