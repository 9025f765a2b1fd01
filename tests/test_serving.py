"""Where the embedded worker starts, and where not."""

import subprocess
import sys
import zipfile

import pytest
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_started

from realtime_runs import routing
from realtime_runs.engine.backends import base
from tests.conftest import EMBEDDED, ROOT, SERVERS
from tests.tasks import echo

pytestmark = pytest.mark.django_db


class CountingBackend(base.Backend):
    started = stopped = 0

    def dispatch(self, run_ids):
        pass

    def start(self):
        type(self).started += 1

    def stop(self):
        type(self).stopped += 1


async def nothing(scope, receive, send):
    """In place of Django."""


@pytest.fixture
def backend(settings):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "BACKEND": f"{__name__}.CountingBackend"}
    CountingBackend.started = CountingBackend.stopped = 0
    return CountingBackend


def test_building_the_asgi_application_starts_the_backend(backend):
    routing.application(nothing)
    assert backend.started == 1


@pytest.mark.parametrize("handler", [WSGIHandler, ASGIHandler])
def test_a_server_without_our_line_starts_it_with_its_first_request(backend, handler):
    request_started.send(sender=handler)
    assert backend.started == 1


def test_the_test_client_does_not_start_it(backend, client):
    client.get("/")
    assert backend.started == 0


async def test_the_end_of_the_lifespan_drains(backend):
    sent = []
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive():
        return next(messages)

    async def send(message):
        sent.append(message["type"])

    await routing.application(nothing)({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert backend.stopped == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "arguments", [["shell", "-c", "import threading; print([t.name for t in threading.enumerate()])"]]
)
def test_other_commands_do_not_start_it(server_env, start_process, arguments):
    process = start_process(["manage.py", *arguments], env=server_env | {"REALTIME_RUNS_BACKEND": EMBEDDED})
    assert process.wait() == 0
    assert "MainThread" in process.output()
    assert "realtime-runs-worker" not in process.output()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("kind", SERVERS)
def test_a_server_executes_what_an_earlier_process_left(asgi_server, kind):
    from realtime_runs import runs

    left = echo.trigger("left", delay=0.01)  # queued by nobody's commit: found by upkeep
    asgi_server(kind)
    assert runs.poll(left, interval=0.05, timeout=20).output == "left"


@pytest.mark.django_db(transaction=True)
def test_autoreload_starts_one_worker(server_env, start_process):
    from tests.services import free_port

    process = start_process(
        ["manage.py", "runserver", f"127.0.0.1:{free_port()}"],
        env=server_env | {"REALTIME_RUNS_BACKEND": EMBEDDED},
        fresh=True,
    )
    process.wait_for_output("embedded worker is ready")
    assert process.output().count("embedded worker is ready") == 1


def test_the_package_builds_a_wheel_with_all_its_parts(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "realtime_runs/py.typed" in names
    assert "realtime_runs/migrations/0001_initial.py" in names
    assert "realtime_runs/management/commands/runs_worker.py" in names
    assert not [name for name in names if name.startswith(("tests/", "project/"))]
