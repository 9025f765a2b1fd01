"""Python programs in processes of their own that begin with the libraries already imported.

A new interpreter spends most of a second of CPU on imports, and the suite starts hundreds. These are forked from a process
that has imported what needs no settings, and nothing else: no Django project, no thread, no event loop. What a program
is told (arguments, environment, directory) and what it loads of ours begins after the fork.
"""

import atexit
import contextlib
import gc
import io
import multiprocessing
import os
import runpy
import subprocess
import sys
import threading
import time
import types
from collections.abc import Mapping, Sequence
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
# Not `daphne.server`: it installs Twisted's reactor, and forked processes would share what that waits on.
CONTEXT.set_forkserver_preload(
    [
        "autobahn.twisted.websocket",
        "channels.auth",
        "channels.db",
        "channels.generic.websocket",
        "channels.routing",
        "channels_redis.core",
        "channels_redis.pubsub",
        "daphne.http_protocol",
        "daphne.ws_protocol",
        "dj_database_url",
        "django.contrib.admin.options",
        "django.contrib.admin.views.main",
        "django.contrib.auth.hashers",
        "django.contrib.staticfiles.handlers",
        "django.core.handlers.asgi",
        "django.core.management",
        "django.db.backends.sqlite3.base",
        "django.db.migrations.executor",
        "django.test",
        "drf_spectacular.utils",
        "httpx",
        "httpx_sse",
        "jwt",
        "orjson",
        "psycopg",
        "pydantic.json_schema",
        "pydantic.main",
        "pydantic.type_adapter",
        "rest_framework.serializers",
        "twisted.internet.asyncioreactor",
        "twisted.web.http",
        "uvicorn.main",
        "uvicorn.protocols.http.auto",
        "uvicorn.protocols.websockets.auto",
        "whitenoise.middleware",
    ]
)


class ForkedProgram:
    """What `subprocess.Popen([sys.executable, *arguments], start_new_session=True)` is, as far as tests use it."""

    def __init__(
        self, arguments: Sequence[str], cwd: Path, env: Mapping[str, str], log: Path, stdin: Path = Path(os.devnull)
    ) -> None:
        options = ([*map(str, arguments)], str(cwd), dict(env), str(stdin), str(log))
        self._process = CONTEXT.Process(target=_execute, args=options, daemon=True)
        self._process.start()
        self.pid: int = self._process.pid
        with contextlib.suppress(ProcessLookupError):  # it has ended
            while os.getpgid(self.pid) != self.pid:  # signals go to a group that it has to make first
                time.sleep(0.001)

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None as long as it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired("a forked program", timeout or 0)
        return code


def _execute(arguments: list[str], cwd: str, env: dict[str, str], stdin: str, log: str) -> None:
    """Do in this new process what `python *arguments` does in its first moment."""
    os.setsid()
    gc.freeze()  # what was imported before is never garbage, and a third of a start would go into looking
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for path, flags, descriptors in ((stdin, os.O_RDONLY, [0]), (log, os.O_WRONLY | os.O_APPEND, [1, 2])):
        opened = os.open(path, flags)
        for descriptor in descriptors:
            os.dup2(opened, descriptor)
        os.close(opened)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - as long as the process
    sys.stdout = _unbuffered(1, "strict")
    sys.stderr = _unbuffered(2, "backslashreplace")
    first, *rest = arguments
    try:
        if first == "-m":
            sys.argv = rest
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        elif first == "-c":
            sys.argv = ["-c", *rest[1:]]
            main = sys.modules["__main__"] = types.ModuleType("__main__")
            exec(compile(rest[0], "<string>", "exec"), main.__dict__)  # noqa: S102 - a test's own program
        else:
            sys.argv = arguments
            runpy.run_path(first, run_name="__main__")
    finally:  # as an interpreter ends, which multiprocessing leaves out
        threading._shutdown()
        atexit._run_exitfuncs()


def _unbuffered(descriptor: int, errors: str) -> io.TextIOWrapper:
    binary = open(descriptor, "wb", buffering=0, closefd=False)  # noqa: SIM115
    return io.TextIOWrapper(binary, encoding="utf-8", errors=errors, write_through=True)
