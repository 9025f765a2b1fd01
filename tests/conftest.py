"""Fixtures for tests with more than one thread or process. (`redis_url` comes from tests/services.py.)"""

import asyncio
import gc
import http.client
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import connection, connections
from hypothesis import settings as hypothesis_settings

from tests.forking import ForkedProgram
from tests.services import free_port

ROOT = Path(__file__).resolve().parent.parent
# The suite tries the same values each time: whether a change passes is no gamble. `--hypothesis-profile=explore` looks for more.
hypothesis_settings.register_profile("same-each-time", derandomize=True, deadline=None)
hypothesis_settings.register_profile("explore", deadline=None, max_examples=2000)
hypothesis_settings.load_profile("same-each-time")

# What is made while tests are collected stays to the end, so looking for garbage in it only took time: two fifths of it,
# in each process of pytest-xdist.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


# Where a shell has started us in the background Ctrl-C is ignored, in all that we start too; tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

EMBEDDED = "realtime_runs.engine.backends.embedded.EmbeddedBackend"
HOUR = 3600


def eventually(fn: Callable[[], Any], timeout: float = 10, interval: float = 0.02, message: str = "") -> Any:
    """Call `fn` until it returns something true, and return that. Fails after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (value := fn()):
        if time.monotonic() > deadline:
            pytest.fail(f"{message or 'Did not come true'} within {timeout} s; last value: {value!r}")
        time.sleep(interval)
    return value


def close_connection_of_event_loops() -> None:
    """Of the thread in which asgiref calls sync code for all event loops. Before a test has it cut: others use it too."""
    asyncio.run(sync_to_async(connections.close_all)())


@pytest.fixture(name="eventually")
def eventually_fixture() -> Callable[..., Any]:
    return eventually


@pytest.fixture
def in_threads() -> Callable[..., list[Any]]:
    """`in_threads(n, fn, *args)`: n threads call fn at the same moment; what each returned or raised."""

    def run(n: int, fn: Callable[..., Any], *args: Any) -> list[Any]:
        outcomes: list[Any] = [None] * n
        barrier = threading.Barrier(n)

        def call(position: int) -> None:
            try:
                barrier.wait()
                outcomes[position] = fn(*args)
            except BaseException as error:  # the test judges it
                outcomes[position] = error
            finally:
                connections.close_all()  # connections belong to their thread, and nobody else would close these

        threads = [threading.Thread(target=call, args=(position,), daemon=True) for position in range(n)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return outcomes

    return run


@pytest.fixture
def live(settings: Any) -> Iterator[Callable[..., None]]:
    """`live(BACKSTOP_SECONDS=…)`: a new hub under these settings. Until then one that hears only bells."""
    from tests.following import restart_hub  # which needs this file and Django

    def start(**values: Any) -> None:
        settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, **values}
        restart_hub()

    start(BACKSTOP_SECONDS=HOUR)
    yield start
    restart_hub()


@pytest.fixture
def nobody_executes(settings: Any) -> None:
    """This process triggers and writes as a server does, and executes nothing."""
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "BACKEND": EMBEDDED}


class Process:
    """A program that a test has started, in a process group of its own; signals go to the whole group.

    `fresh=True` gives it a new interpreter, for a test of how a program starts; else it is forked (tests/forking.py).
    """

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str], log: Path, fresh: bool = False) -> None:
        self.title = " ".join(arguments)
        self._log = log
        log.touch()
        self._popen: ForkedProgram | subprocess.Popen[bytes]
        if not fresh:
            self._popen = ForkedProgram(arguments, ROOT, env, log)
            return
        with log.open("wb") as output:
            self._popen = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env={**env, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def has_ended(self) -> bool:
        return self._popen.poll() is not None

    def output(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait_for_output(self, text: str, timeout: float = 20) -> str:
        """The whole output, once it contains the text."""

        def has_text() -> str:
            has_ended = self.has_ended  # asked first, so that its last words are in the output
            output = self.output()
            if text in output:
                return output
            if has_ended:
                pytest.fail(f"{self.title} ended with {self.wait()} before it printed {text!r}")
            return ""

        return eventually(has_text, timeout, message=f"{self.title} did not print {text!r}")

    def stop(self) -> None:
        self._signal(signal.SIGSTOP)

    def cont(self) -> None:
        self._signal(signal.SIGCONT)

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def kill9(self) -> None:
        self._signal(signal.SIGKILL)
        self.wait()

    def wait(self, timeout: float = 20) -> int:
        """The exit code; negative for a signal."""
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{self.title} was still running after {timeout} s")

    def _signal(self, number: signal.Signals) -> None:
        if not self.has_ended:  # until we have seen it end, nobody else can have got its number
            os.killpg(self.pid, number)


def freeze(process: Process) -> None:
    """SIGSTOP, but not in the middle of a transaction, for whose end others would have to wait."""
    eventually(partial(_freeze, process))


def _freeze(process: Process) -> bool:
    process.stop()
    eventually(partial(_has_stopped, process.pid), interval=0.001)
    is_locked = _is_database_locked()
    if is_locked:
        process.cont()
    return not is_locked


def _has_stopped(pid: int) -> bool:
    """Whether each thread of the process has."""
    states = [task.read_text().rpartition(")")[2].split()[0] for task in Path(f"/proc/{pid}/task").glob("*/stat")]
    return set(states) <= {"T"}


def _is_database_locked() -> bool:
    """Whether somebody is in the middle of a transaction that writes."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND state LIKE 'idle in transaction%'"
            )
            return cursor.fetchone() != (0,)
    with closing(sqlite3.connect(connection.settings_dict["NAME"], timeout=0.3, isolation_level=None)) as probe:
        try:
            probe.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
    return False


PROCESSES = pytest.StashKey[list[Process]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.failed:
        for process in item.stash.get(PROCESSES, []):
            report.sections.append((f"Output of {process.title} (pid {process.pid})", process.output()))
    # pytest-xdist sends reports as UTF-8; what some tests make the code log has none.
    report.sections = [(title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections]
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Why tests were tried again: of those that passed then, nothing else says more than the name."""
    for report in terminalreporter.stats.get("rerun", ()):
        terminalreporter.section(f"tried again: {report.nodeid}")
        terminalreporter.write_line(report.longreprtext)
        for title, text in report.sections:
            terminalreporter.write_line(f"- {title} -\n{text[-4000:]}")


@pytest.fixture
def start_process(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Process]]:
    """`start_process(["manage.py", "check"], env=…)`: Python with these arguments, in the repository's root.

    `fresh=True` is Process's. Whatever still runs after the test is killed, before the test's database is emptied.
    """
    if "transactional_db" in request.fixturenames:
        request.getfixturevalue("transactional_db")
    processes = request.node.stash.setdefault(PROCESSES, [])
    logs = tmp_path_factory.mktemp("processes")

    def start(arguments: Sequence[str], env: Mapping[str, str] | None = None, fresh: bool = False) -> Process:
        process = Process(arguments, os.environ if env is None else env, logs / f"{len(processes)}.log", fresh)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill9()


def environment_of_servers() -> dict[str, str]:
    """Of a process that works on the database that is connected now. Add REDIS_URL to give it a channel layer."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    return env | {
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "TESTS_DATABASE_NAME": str(connection.settings_dict["NAME"]),
        "DEBUG": "0",  # as where it matters; Django keeps each statement of the last 9,000 else
    }


@pytest.fixture
def server_env(transactional_db: None) -> dict[str, str]:
    """`environment_of_servers()` in a test whose database they may use."""
    return environment_of_servers()


def with_settings(env: Mapping[str, str], overrides: Mapping[str, Any]) -> dict[str, str]:
    """The environment with REALTIME_RUNS settings that win over those of tests.settings."""
    given = json.loads(env.get("REALTIME_RUNS_OVERRIDES", "{}"))
    return {**env, "REALTIME_RUNS_OVERRIDES": json.dumps(given | dict(overrides))}


@pytest.fixture
def worker(server_env: dict[str, str], start_process: Callable[..., Process]) -> Callable[..., Process]:
    """`worker(*arguments, env={…}, LEASE_SECONDS=5)`: a `manage.py runs_worker` that is ready for work."""

    def start(*arguments: str, env: Mapping[str, str] | None = None, **overrides: Any) -> Process:
        full_env = {**server_env, "REALTIME_RUNS_BACKEND": EMBEDDED, **(env or {})}
        # Django's checks are a third of the time that it takes to start.
        command = ["manage.py", "runs_worker", "--skip-checks", *arguments]
        process = start_process(command, env=with_settings(full_env, overrides))
        process.wait_for_output("Worker ready")
        return process

    return start


class WebServer:
    """A process that serves the demo project at `url` (without a slash at the end)."""

    def __init__(self, process: Process, port: int) -> None:
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def answers(self) -> bool:
        if self.process.has_ended:
            pytest.fail(f"{self.process.title} ended before it answered")
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            client.request("GET", "/")
            client.getresponse().read()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            client.close()
        return True


# For `params=` of what must be so on both. Each with one database: neither knows of the other, and starting both twice
# costs a tenth of the suite.
SERVERS = [pytest.param("daphne", marks=pytest.mark.sqlite), pytest.param("uvicorn", marks=pytest.mark.postgres)]


def serve(
    start: Callable[..., Process], env: Mapping[str, str], kind: str, *arguments: str, port: int = 0, **overrides: Any
) -> WebServer:
    """project.asgi:application under Daphne or Uvicorn, with a worker inside unless `env` or BACKEND says otherwise."""
    port = port or free_port()
    address = {
        "daphne": ["-b", "127.0.0.1", "-p", str(port)],
        "uvicorn": ["--host", "127.0.0.1", "--port", str(port)],
    }
    full_env = with_settings({"REALTIME_RUNS_BACKEND": EMBEDDED, **env}, overrides)
    server = WebServer(start(["-m", kind, *address[kind], *arguments, "project.asgi:application"], env=full_env), port)
    eventually(server.answers, timeout=20, message=f"{kind} did not answer")
    return server


@pytest.fixture
def asgi_server(server_env: dict[str, str], start_process: Callable[..., Process]) -> Callable[..., WebServer]:
    """`asgi_server("uvicorn", *arguments, env={…}, BACKEND="…")`: the project under Daphne or Uvicorn, as `serve` does."""

    def start(
        kind: str = "daphne", *arguments: str, env: Mapping[str, str] | None = None, port: int = 0, **overrides: Any
    ) -> WebServer:
        return serve(start_process, {**server_env, **(env or {})}, kind, *arguments, port=port, **overrides)

    return start


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """Close what killed workers and threads of event loops have left open: PostgreSQL drops no database in use."""
    yield
    if settings.DATABASES["default"]["ENGINE"] == "django.db.backends.postgresql":
        with django_db_blocker.unblock(), connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
