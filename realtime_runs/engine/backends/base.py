"""What executes runs. A backend is only told that runs are there; the rows are the truth."""

from collections.abc import Sequence
from functools import lru_cache

from django.utils.module_loading import import_string

from realtime_runs.conf import app_settings


class Backend:
    """Base of the backends named by REALTIME_RUNS["BACKEND"]."""

    #: Whether `dispatch` executes the runs before it returns. Then a task may wait for a child inside a transaction.
    executes_inline = False

    def dispatch(self, run_ids: Sequence[str]) -> None:
        """These runs are committed and queued. Called after commit, perhaps more than once, perhaps never."""
        raise NotImplementedError

    def start(self) -> None:
        """The process begins to serve."""

    def stop(self) -> None:
        """The process is about to end."""


def get_backend() -> Backend:
    """The backend of the settings; one object per dotted path and process."""
    return _load(app_settings.BACKEND)


@lru_cache
def _load(path: str) -> Backend:
    backend = import_string(path)()
    if not isinstance(backend, Backend):
        raise TypeError(f"REALTIME_RUNS['BACKEND'] {path!r} is not a realtime_runs backend.")
    return backend
