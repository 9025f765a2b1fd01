from typing import Any

from django.apps import AppConfig
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_started
from django.utils.module_loading import autodiscover_modules


class RealtimeRunsConfig(AppConfig):
    name = "realtime_runs"
    verbose_name = "Realtime runs"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from realtime_runs import checks  # noqa: F401 registers them

        autodiscover_modules("tasks")
        request_started.connect(_start_backend, dispatch_uid="realtime_runs")


def _start_backend(sender: Any, **kwargs: Any) -> None:
    """A server whose asgi.py lacks our line, or a WSGI server, begins to work with its first request."""
    # The test client says the same, but it is not serving.
    if isinstance(sender, type) and issubclass(sender, ASGIHandler | WSGIHandler):
        from realtime_runs.engine.backends.base import get_backend

        get_backend().start()
