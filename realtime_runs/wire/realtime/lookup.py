"""The run in the path of a request."""

from realtime_runs.database import readers
from realtime_runs.exceptions import RunNotFound
from realtime_runs.models import Run


def _find(run_id: str) -> Run | None:
    return Run.objects.without_packets().find(run_id)


async def find_run(run_id: str) -> Run | None:
    return await readers.run(_find, run_id)


async def get_run(run_id: str) -> Run:
    """Raises RunNotFound."""
    run = await find_run(run_id)
    if run is None:
        raise RunNotFound(run_id)
    return run
