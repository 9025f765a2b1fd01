"""Workers that the tests of a module share: a start costs more than most tests. Killed ones are replaced on demand."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from realtime_runs.models import Attempt, Run, RunEvent, RunTag
from realtime_runs.statuses import FINAL
from tests.conftest import EMBEDDED, Process, eventually, freeze, with_settings


@pytest.fixture(autouse=True)
def _backend_of_servers(settings: Any) -> None:
    """This process triggers as a server does, and executes nothing."""
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "BACKEND": EMBEDDED}


class Fleet:
    """`fleet(3)`: at least three real workers, ready for work. A module sets their settings in FLEET."""

    def __init__(self, folder: Path, overrides: dict[str, Any]) -> None:
        self.env: dict[str, str] = {}
        self._folder = folder
        self._overrides = overrides
        self._all: list[Process] = []

    @property
    def processes(self) -> list[Process]:
        return [process for process in self._all if not process.has_ended]

    def __call__(self, count: int) -> list[Process]:
        self.thaw(*self.processes)
        new = [self._start() for _ in range(count - len(self.processes))]
        for process in new:  # all are starting at the same time
            process.wait_for_output("Worker ready")
        return self.processes

    def _start(self) -> Process:
        env = with_settings({**self.env, "REALTIME_RUNS_BACKEND": EMBEDDED}, self._overrides)
        command = ["manage.py", "runs_worker", "--skip-checks"]
        process = Process(command, env, self._folder / f"worker-{len(self._all)}.log")
        self._all.append(process)
        return process

    def holder(self, run_id: str) -> Process:
        """The worker that executes the run, or was the last to do so."""
        worker = Attempt.objects.filter(run=run_id).latest("number").worker
        pid = int(worker.rpartition(":")[2])
        return next(process for process in self._all if process.pid == pid)

    def freeze(self, *processes: Process) -> None:
        for process in processes:
            freeze(process)

    def thaw(self, *processes: Process) -> None:
        for process in processes:
            process.cont()

    def output(self) -> str:
        return "\n".join(process.output() for process in self._all)

    def close(self) -> None:
        for process in self.processes:
            process.kill9()


@pytest.fixture(scope="module")
def _fleet_of_module(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path_factory.mktemp("fleet"), getattr(request.module, "FLEET", {}))
    yield fleet
    fleet.close()
    assert "database is locked" not in fleet.output()


FLEET_OUTPUT = pytest.StashKey[tuple[Fleet, int]]()


@pytest.fixture
def fleet(_fleet_of_module: Fleet, server_env: dict[str, str], request: pytest.FixtureRequest) -> Iterator[Fleet]:
    _fleet_of_module.env = server_env
    request.node.stash[FLEET_OUTPUT] = (_fleet_of_module, len(_fleet_of_module.output()))
    yield _fleet_of_module
    # The database is emptied now: nobody shall write to it meanwhile.
    _fleet_of_module.freeze(*_fleet_of_module.processes)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.failed and (found := item.stash.get(FLEET_OUTPUT, None)):
        fleet, before = found
        report.sections.append(("Output of the fleet", fleet.output()[before:]))
        fleet.close()  # the next test shall not suffer for what this one did to it
    return report


class Work:
    """A payload for the tasks of tests/tasks_faults.py: the lines they wrote, and the gates they wait at."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "log"
        self._gate = folder / "gate"

    def __call__(self, **more: Any) -> dict[str, Any]:
        return {"log": str(self._log), "gate": str(self._gate), **more}

    def lines(self) -> list[str]:
        return self._log.read_text().splitlines() if self._log.exists() else []

    def wait_for(self, line: str, times: int = 1, timeout: float = 20) -> None:
        def is_there() -> bool:
            return self.lines().count(line) >= times

        eventually(is_there, timeout, message=f"No {times} times {line!r} in {self.lines()}")

    def open(self, number: int = 1) -> None:
        """Let the attempts with this number go on."""
        Path(f"{self._gate}-{number}").touch()


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path)


@pytest.fixture
def final() -> Callable[..., list[Run]]:
    """`final(handle, …)`: the rows of these runs or batches, once all are final."""

    def wait(*handles: Any, timeout: float = 30) -> list[Run]:
        ids = [run_id for handle in handles for run_id in getattr(handle, "run_ids", (handle.id,))]
        deadline = time.monotonic() + timeout
        while Run.objects.filter(pk__in=ids).unfinished().exists():
            if time.monotonic() > deadline:
                found = Run.objects.filter(pk__in=ids).values_list("task", "status", "attempt", "error")
                pytest.fail(f"Not final within {timeout} s: {list(found)}")
            time.sleep(0.05)
        rows = Run.objects.in_bulk(ids)
        return [rows[run_id] for run_id in ids]

    return wait


def history(run_id: str) -> list[str]:
    """The statuses that the run entered, in order."""
    return list(RunEvent.objects.filter(run=run_id).order_by("id").values_list("status", flat=True))


def assert_ended_once(run_id: str) -> None:
    statuses = history(run_id)
    assert [status for status in statuses if status in FINAL] == statuses[-1:], statuses


def everything_of(run_id: str) -> list[Any]:
    """All that is stored of a run, but for the lease, which its worker renews."""
    return [
        Run.objects.filter(pk=run_id).values().get() | {"lease_until": None},
        list(Attempt.objects.filter(run=run_id).values()),
        list(RunEvent.objects.filter(run=run_id).values()),
        list(RunTag.objects.filter(run=run_id).values()),
    ]
