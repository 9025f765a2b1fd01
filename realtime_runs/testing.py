"""Helpers for the tests of projects that use realtime_runs.

With `REALTIME_RUNS = {"BACKEND": "realtime_runs.engine.backends.immediate.ImmediateBackend"}` a run is executed before
`trigger` returns. A test that lives in a transaction (Django's TestCase, pytest-django's `db`) commits nothing, so
there it calls `execute_queued_runs`.
"""

from realtime_runs.engine.backends.immediate import execute
from realtime_runs.models import Run

__all__ = ["execute_queued_runs"]


def execute_queued_runs() -> list[str]:
    """Execute every ready run in this thread, also those that they trigger, and return their ids in order."""
    executed: list[str] = []
    while ids := list(Run.objects.ready().values_list("pk", flat=True)[:100]):
        before = len(executed)
        for run_id in ids:
            if run_id not in executed:
                executed.append(run_id)
                execute(run_id)
        if len(executed) == before:
            break  # only runs of unknown tasks are left
    return executed
