"""The official packages, servers for the tests of a module together, and what the checks of scripts found.

One Node.js process runs the checks of some scripts (scripts/*.mjs), several at a time; each is a test of its own here.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections

from tests.conftest import PROCESSES, Process, WebServer, environment_of_servers, serve
from tests.services import skip_or_fail

HERE = Path(__file__).resolve().parent
SCRIPTS = HERE / "scripts"
MODULES = HERE / "node_modules"
SECRET_KEY = "tr_dev_" + "interop" * 5
INSTALL_SECONDS = 240
SCRIPTS_SECONDS = 150  # far above what they take: each of their checks has a limit of its own
NAME = re.compile(r'^check\("([^"\\]+)"', re.MULTILINE)


def checks_of(scripts: Sequence[str]) -> list[tuple[str, str]]:
    """The names of their checks, without running them: pytest-xdist wants to know the tests beforehand."""
    found = [(script, name) for script in scripts for name in NAME.findall((SCRIPTS / script).read_text("utf-8"))]
    assert {script for script, _ in found} == set(scripts), "a script has no checks"
    assert len(found) == len(set(found)), "a script uses a name twice"
    return found


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE) and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(INSTALL_SECONDS + SCRIPTS_SECONDS))  # the first may have to install


class Uninstallable(Exception):
    """The packages cannot be had here. The message says why."""


@pytest.fixture(scope="session")
def node(request: pytest.FixtureRequest) -> str:
    """Path of Node.js, when the packages are in node_modules. Installs them once for all processes of the suite."""
    try:
        return install_packages()
    except Uninstallable as reason:
        skip_or_fail(request.config, f"The official packages cannot be installed: {reason}")


def install_packages() -> str:
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        raise Uninstallable(f"there is no {'npm' if node else 'node'} on PATH")
    wanted = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()
    stamp = MODULES / ".installed"
    with (HERE / ".install-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.is_file() or stamp.read_text() != wanted:
            install(npm)
            stamp.write_text(wanted)  # last: an interrupted installation is done again
    return node


def install(npm: str) -> None:
    options = [
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--engine-strict",
        "--prefer-offline",
        "--fetch-retries=1",
    ]
    try:
        done = subprocess.run(
            [npm, "ci", *options],
            cwd=HERE,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=INSTALL_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise Uninstallable(f"npm ci took more than {INSTALL_SECONDS} s") from None
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if "error" in line]
        raise Uninstallable("; ".join(errors[:3]) or f"npm ci ended with {done.returncode}")


@pytest.fixture(scope="module")
def transactional_db(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """In this folder it lasts for a module: the tests only look at what was found, and a server keeps the database."""
    yield
    with django_db_blocker.unblock():
        call_command("flush", interactive=False, verbosity=0)
        connections.close_all()


@pytest.fixture(scope="module")
def serve_module(
    transactional_db: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., WebServer]]:
    """`serve_module("uvicorn", **overrides)`: the project on the test database, until the last test of the module."""
    processes: list[Process] = []
    folder = tmp_path_factory.mktemp("interop")

    def start_process(arguments: list[str], env: dict[str, str]) -> Process:
        processes.append(Process(arguments, env, folder / f"{len(processes)}.log"))
        return processes[-1]

    def start(kind: str, **overrides: Any) -> WebServer:
        env = {**environment_of_servers(), "MEDIA_ROOT": str(folder / "media")}
        return serve(start_process, env, kind, SECRET_KEYS=[SECRET_KEY], **overrides)

    yield start
    for process in processes:
        process.kill9()


def environment_of_scripts(server: WebServer) -> dict[str, str]:
    """With what the official packages read from it, and nothing else that changes them or Node.js."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("TRIGGER_", "NODE_"))}
    return env | {"TRIGGER_API_URL": server.url, "TRIGGER_SECRET_KEY": SECRET_KEY}


class Outcomes:
    """What the checks of scripts found at one server. Scripts run when one of their checks is first asked for."""

    def __init__(self, node: str, server: WebServer) -> None:
        self._node = node
        self._server = server
        self._found: dict[tuple[str, str], str] = {}
        self._ran: set[str] = set()

    def take(self, scripts: Sequence[str], script: str, check: str) -> str:
        """What went wrong with it, or nothing. Whoever asks again, as a rerun does, has its script run again."""
        if (script, check) not in self._found:
            self._found |= self._run([script] if script in self._ran else scripts)
            self._ran.update(scripts)
        return self._found.pop((script, check))

    def _run(self, scripts: Sequence[str]) -> dict[tuple[str, str], str]:
        process = subprocess.Popen(
            [self._node, "run.mjs", *(f"./{script}" for script in scripts)],
            cwd=SCRIPTS,
            env=environment_of_scripts(self._server),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        timer = threading.Timer(SCRIPTS_SECONDS, process.kill)
        timer.start()
        with process:
            output, errors = process.communicate()
        timer.cancel()
        ended = f"Node.js ended with {process.returncode} before this check did:\n{errors[-4000:]}"
        found = dict.fromkeys(checks_of(scripts), ended)
        for line in output.splitlines():
            with contextlib.suppress(ValueError):
                outcome = json.loads(line)
                check = (outcome["script"].removeprefix("./"), outcome["check"])
                assert check in found, f"checks_of() has overlooked {line}"
                found[check] = outcome["problem"]
        return found


@pytest.fixture(scope="module")
def outcomes(node: str, server: WebServer) -> Outcomes:
    return Outcomes(node, server)


@pytest.fixture
def passes(request: pytest.FixtureRequest, outcomes: Outcomes, server: WebServer) -> Callable[..., None]:
    """`passes(scripts, "runs.mjs", name)`: fails with what the check of this name found. The scripts run together."""
    request.node.stash[PROCESSES] = [server.process]  # whose output is shown when the test fails

    def ask(scripts: Sequence[str], script: str, check: str) -> None:
        if problem := outcomes.take(scripts, script, check):
            pytest.fail(problem, pytrace=False)

    return ask
