"""The demo project's settings with short waits and a database of the test session (see tests/services.py)."""

import json
import os
import sys
import tempfile
from pathlib import Path

from project.settings import *  # noqa: F403 - settings are module globals, and these are the project's
from project.settings import DATABASES, INSTALLED_APPS, REALTIME_RUNS

ROOT_URLCONF = "tests.urls"
# Daphne's app only replaces `runserver`, and is a third of what it takes to start one of the many processes.
INSTALLED_APPS = [app for app in [*INSTALLED_APPS, "tests"] if app != "daphne" or "runserver" in sys.argv]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
# As in the demo. Else each of the many clients looks at all static files first: 17 ms, more than its requests take.
WHITENOISE_AUTOREFRESH = True

if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # A file: threads and other processes must see it, and the shared in-memory cache answers them "table is locked".
    sqlite_dir = Path(os.environ.get("TEST_SQLITE_DIR", tempfile.gettempdir()))
    DATABASES["default"]["TEST"] = {"NAME": str(sqlite_dir / f"test-{os.getpid()}.sqlite3")}
if test_database := os.environ.get("TESTS_DATABASE_NAME"):
    DATABASES["default"]["NAME"] = test_database  # we are a process that a test has started

REALTIME_RUNS = {
    **REALTIME_RUNS,
    "BACKEND": os.environ.get("REALTIME_RUNS_BACKEND", "realtime_runs.engine.backends.immediate.ImmediateBackend"),
    "LEASE_SECONDS": 2,
    "POLL_SECONDS": 0.2,
    "SHUTDOWN_GRACE_SECONDS": 2,
    **json.loads(os.environ.get("REALTIME_RUNS_OVERRIDES", "{}")),
}
