"""The demo project under an ASGI server (Daphne and Uvicorn alike): Django, live runs, and the worker inside."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
django_application = get_asgi_application()

from realtime_runs import routing  # noqa: E402 - needs the apps, which the line above loads

application = routing.application(django_application)
