"""What the tests of readers of runs share: a reader in a thread, the hub as new, runs that change when a test says so."""

import asyncio
import threading
from typing import Any

from django.db import connections, transaction

from realtime_runs import batch
from realtime_runs.live import bell
from realtime_runs.live.hub import hub
from realtime_runs.live.loop import live_loop
from realtime_runs.models import Run
from realtime_runs.runs import RealtimeRun, Subscription
from tests import tasks as t
from tests.conftest import eventually


class Reader:
    """Follows in a thread of its own, by `for` or by `async for`; halts in its loop while `may_go_on` is not set."""

    def __init__(self, subscription: Subscription[Any, Any], kind: str, *, halted: bool = False) -> None:
        self.subscription = subscription
        self.items: list[RealtimeRun] = []
        self.error: BaseException | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.may_go_on = threading.Event()
        if not halted:
            self.may_go_on.set()
        self._read = self._read_async if kind == "async for" else self._read_sync
        self.thread = threading.Thread(target=self._run, name="test-reader", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._read()
        except BaseException as error:  # the test judges it
            self.error = error
        finally:
            connections.close_all()

    def _read_sync(self) -> None:
        for run in self.subscription:
            self._took(run)

    def _read_async(self) -> None:
        async def read() -> None:
            self.loop = asyncio.get_running_loop()
            async for run in self.subscription:
                self._took(run)

        asyncio.run(read())

    def _took(self, run: RealtimeRun) -> None:
        self.items.append(run)
        self.may_go_on.wait()

    @property
    def has_ended(self) -> bool:
        return not self.thread.is_alive()

    @property
    def newest(self) -> dict[str, int]:
        """The last version that was given, by run id."""
        return {run.id: run.version for run in list(self.items)}

    def versions(self, run_id: str) -> list[int]:
        return [run.version for run in list(self.items) if run.id == run_id]

    def saw(self, run_id: str, version: int) -> "Reader":
        """Wait until it was given this version or a later one."""
        eventually(lambda: self.newest.get(run_id, 0) >= version or self._must_live(), message="The reader saw nothing")
        return self

    def began(self) -> "Reader":
        """Wait until it was given something; from then on bells reach it."""
        eventually(lambda: self.items or self._must_live(), message="The reader was given nothing")
        return self

    def _must_live(self) -> None:
        if self.has_ended and self.error is not None:
            raise self.error

    def ended(self) -> list[RealtimeRun]:
        """Wait for its end; what it was given. Raises what ended it."""
        self.thread.join(10)
        assert self.has_ended, f"It goes on after {[(run.id, run.version) for run in self.items]}"
        if self.error is not None:
            raise self.error
        return self.items

    def stop(self) -> None:
        self.subscription.close()
        self.may_go_on.set()
        self.thread.join(10)


async def _restart_hub() -> None:
    tasks = list(hub._tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    hub._reset()


def restart_hub() -> None:
    """As in a process that has just started: a backstop that sleeps takes no notice of other settings."""
    live_loop.start(_restart_hub()).result(10)


def everybody_left() -> None:
    eventually(lambda: hub.listener_count == 0, message="Somebody still listens")


def later(**options: Any) -> str:
    """The id of a run that nobody executes."""
    return t.echo.trigger(1, delay="1h", **options).id


def later_in_batch(count: int) -> tuple[str, tuple[str, ...]]:
    handle = batch.trigger([{"task": t.echo, "payload": 1, "options": {"delay": "1h"}} for _ in range(count)])
    return handle.id, handle.run_ids


def touch(run_id: str, **values: Any) -> int:
    """Change the run as any write does, and return its new version."""
    with transaction.atomic():
        changes = Run.objects.filter(pk=run_id).touch(**values)
        bell.announce(changes)
    return changes[0].version
