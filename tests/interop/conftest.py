"""The official packages, a server for the tests of a module together, and what the checks of a script found.

A script (scripts/*.mjs) runs all its checks in one Node.js process, several at a time; each is a test of its own here.
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
from collections.abc import Callable, Iterator
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
SCRIPT_SECONDS = 150  # far above what a script takes: each of its checks has a limit of its own
NAME = re.compile(r'^check\("([^"\\]+)"', re.MULTILINE)


def checks_of(script: str) -> list[str]:
    """The names of its checks, without running it: pytest-xdist wants to know the tests beforehand."""
    names = NAME.findall((SCRIPTS / script).read_text(encoding="utf-8"))
    assert names, f"{script} has no checks"
    assert len(names) == len(set(names)), f"{script} uses a name twice"
    return names


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE) and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(INSTALL_SECONDS + SCRIPT_SECONDS))  # the first may have to install


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


@pytest.fixture(scope="module", params=["uvicorn"])
def server(request: pytest.FixtureRequest, node: str, serve_module: Callable[..., WebServer]) -> WebServer:
    """One for the module; a module that needs other servers has a fixture of this name itself."""
    return serve_module(request.param)


def environment_of_scripts(server: WebServer) -> dict[str, str]:
    """With what the official packages read from it, and nothing else that changes them or Node.js."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("TRIGGER_", "NODE_"))}
    return env | {"TRIGGER_API_URL": server.url, "TRIGGER_SECRET_KEY": SECRET_KEY}


class Outcomes:
    """What the checks of scripts found at one server. A script runs when one of its checks is first asked for."""

    def __init__(self, node: str, server: WebServer) -> None:
        self._node = node
        self._server = server
        self._found: dict[str, dict[str, str]] = {}

    def take(self, script: str, check: str) -> str:
        """What went wrong with it, or nothing. Whoever asks again, as a rerun does, has the script run again."""
        if check not in self._found.get(script, {}):
            self._found[script] = self._run(script)
        return self._found[script].pop(check)

    def _run(self, script: str) -> dict[str, str]:
        process = subprocess.Popen(
            [self._node, "run.mjs", f"./{script}"],
            cwd=SCRIPTS,
            env=environment_of_scripts(self._server),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        timer = threading.Timer(SCRIPT_SECONDS, process.kill)
        timer.start()
        with process:
            output, errors = process.communicate()
        timer.cancel()
        ended = f"{script} ended with {process.returncode} before this check did:\n{errors[-4000:]}"
        found = dict.fromkeys(checks_of(script), ended)
        for line in output.splitlines():
            with contextlib.suppress(ValueError):
                outcome = json.loads(line)
                assert outcome["check"] in found, f"checks_of() has overlooked {line}"
                found[outcome["check"]] = outcome["problem"]
        return found


@pytest.fixture(scope="module")
def outcomes(node: str, server: WebServer) -> Outcomes:
    return Outcomes(node, server)


@pytest.fixture
def passes(request: pytest.FixtureRequest, outcomes: Outcomes, server: WebServer) -> Callable[[str, str], None]:
    """`passes("runs.mjs", name)`: fails with what the check of this name found."""
    request.node.stash[PROCESSES] = [server.process]  # whose output is shown when the test fails

    def ask(script: str, check: str) -> None:
        if problem := outcomes.take(script, check):
            pytest.fail(problem, pytrace=False)

    return ask
