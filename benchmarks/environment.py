"""Sets Django up for a benchmark: import it before anything of realtime_runs.

The demo project's settings without DEBUG (which would record every query), on a database that exists only meanwhile:
a SQLite file, or with `--database-url` a new database on that PostgreSQL server.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__, add_help=False)
parser.add_argument("--database-url", help="PostgreSQL instead of SQLite: postgres://user:password@host:port/name")
database_url = parser.parse_known_args()[0].database_url

sys.path.insert(0, str(ROOT))
os.environ |= {"DJANGO_SETTINGS_MODULE": "project.settings", "DEBUG": "0", "LOG_LEVEL": "WARNING"}
if database_url:
    os.environ["DATABASE_URL"] = database_url
else:
    os.environ.pop("DATABASE_URL", None)
os.environ.pop("REDIS_URL", None)  # one process: no bell has to leave it

import django  # noqa: E402 - the lines above decide which settings it reads

django.setup()

from django.conf import settings  # noqa: E402
from django.db import connection, connections  # noqa: E402
from django.test.utils import setup_databases, teardown_databases  # noqa: E402


@contextmanager
def database() -> Iterator[str]:
    """A migrated database that is removed afterwards. Gives its name and version."""
    with tempfile.TemporaryDirectory(prefix="realtime-runs-benchmark-") as directory:
        name = f"realtime_runs_benchmark_{os.getpid()}"
        if connection.vendor == "sqlite":
            name = str(Path(directory) / "benchmark.sqlite3")
        connections["default"].settings_dict["TEST"]["NAME"] = name
        old = setup_databases(verbosity=0, interactive=False)
        try:
            yield f"{connection.vendor} {version()}"
        finally:
            if connection.vendor == "postgresql":
                wait_for_others()
            teardown_databases(old, verbosity=0)


def version() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT sqlite_version()" if connection.vendor == "sqlite" else "SHOW server_version")
        return str(cursor.fetchone()[0])


def wait_for_others(seconds: float = 15) -> None:
    """PostgreSQL drops no database in use; threads that have nothing to do give their connection back soon."""
    until = time.monotonic() + seconds
    with connection.cursor() as cursor:
        while time.monotonic() < until:
            cursor.execute("SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database()")
            if cursor.fetchone()[0] == 1:
                break
            time.sleep(0.1)


def use(**overrides: object) -> None:
    """Settings of REALTIME_RUNS for this benchmark; before the first run."""
    settings.REALTIME_RUNS.update(overrides)


def percentile(values: Sequence[float], percent: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * percent / 100))]


@dataclass
class Taken:
    seconds: float = 0.0
    cpu_seconds: float = 0.0  # of this process: says what something costs also on a machine that is busy otherwise


@contextmanager
def stopwatch() -> Iterator[Taken]:
    """What the block took is known afterwards."""
    taken, started, cpu_started = Taken(), time.perf_counter(), time.process_time()
    yield taken
    taken.seconds, taken.cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
