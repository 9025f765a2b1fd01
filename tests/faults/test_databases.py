"""Several processes on one database, early, late and unknown runs, and a database that goes away for a while."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import connection, connections, transaction

from realtime_runs import runs
from realtime_runs.engine import lifecycle
from realtime_runs.models import Attempt, Run
from tests.conftest import Process, close_connection_of_event_loops, eventually
from tests.faults.conftest import Fleet, Work, history
from tests.tasks import f_gate, f_gate_deaf, f_note, f_note_sync, f_orm, f_orm_sync, f_waiting, f_waiting_sync

pytestmark = pytest.mark.django_db(transaction=True)

# A long lease, because SQLite serves those who wait to write in no order, and leases are not the subject here.
FLEET = {"UNKNOWN_TASK_GRACE_SECONDS": 2, "LEASE_SECONDS": 20}

# As many short commands do: a new connection for each trigger, so that the file is opened and closed all the time.
TRIGGERS_ALL_THE_TIME = """
import json, sys, threading
import django
django.setup()
from django.db import connections
from realtime_runs import runs
from realtime_runs.engine import lifecycle
from tests.tasks import f_speaks
def trigger():
    for _ in range(10):
        handle = f_speaks.trigger(json.loads(sys.argv[1]), tags=["hammered", "t"], idempotency_key="k")
        handle = f_speaks.trigger(json.loads(sys.argv[1]), tags=["hammered", "t"])
        runs.add_tags(handle, "later")
        connections.close_all()
threads = [threading.Thread(target=trigger) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("triggered all")
"""


@pytest.mark.sqlite
def test_processes_that_hammer_one_sqlite_file_never_see_it_locked(
    fleet: Fleet, work: Work, server_env: dict[str, str], start_process: Callable[..., Process], final: Any
) -> None:
    fleet(2)
    argument = f'{{"log": "{work()["log"]}"}}'
    connection.close()
    clients = [start_process(["-c", TRIGGERS_ALL_THE_TIME, argument], env=server_env) for _ in range(2)]
    for client in clients:
        assert client.wait(50) == 0, client.output()
        assert "triggered all" in client.output()
    rows = final(*Run.objects.all())
    assert len(rows) == 81
    assert {(run.status, run.attempt, run.metadata) for run in rows} == {("COMPLETED", 1, '{"step":4}')}
    outputs = fleet.output() + "".join(client.output() for client in clients)
    assert "locked" not in outputs
    assert "Traceback" not in outputs


def test_runs_of_a_task_that_nobody_knows_fail_after_a_grace_and_cost_no_work_meanwhile(
    fleet: Fleet, work: Work, final: Any
) -> None:
    (process,) = fleet(1)[:1]
    with transaction.atomic():
        handle = f_note.batch_trigger([work()] * 50)
        Run.objects.update(task="gone")
    before, since = cpu_seconds(process.pid), time.monotonic()
    time.sleep(1)
    used = (cpu_seconds(process.pid) - before) / (time.monotonic() - since)
    assert set(Run.objects.values_list("status", flat=True)) == {"QUEUED"}
    assert used < 0.5
    for run in final(handle):
        assert (run.status, run.attempt, '"UnknownTask"' in run.error) == ("SYSTEM_FAILURE", 0, True)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_delayed_run_is_executed_in_time_and_not_before(fleet: Fleet, work: Work, final: Any) -> None:
    fleet(1)
    handle = f_note.trigger(work(), delay=0.7)
    moved = f_note.trigger(work(), delay="1h")
    (early,) = final(f_note.trigger(work()))
    assert runs.retrieve(handle).status == "DELAYED"
    runs.reschedule(moved, 0.1)
    late, soon = final(handle, moved)
    assert history(late.id) == ["DELAYED", "QUEUED", "EXECUTING", "COMPLETED"]
    assert late.started_at >= late.delayed_until > early.finished_at
    assert soon.started_at >= soon.delayed_until


def test_a_run_that_was_not_started_within_its_ttl_expires_and_is_never_executed(
    fleet: Fleet, work: Work, final: Any
) -> None:
    fleet.freeze(*fleet(1))
    late = f_note.trigger(work(), ttl=1)
    patient = f_note.trigger(work(), ttl="1h")
    time.sleep(1.1)
    assert lifecycle.claim([f_note.id], 1, run_ids=[late.id]) == []  # also when no upkeep has come by yet
    fleet.thaw(*fleet.processes)
    expired, executed = final(late, patient)
    assert (expired.status, expired.attempt, executed.status) == ("EXPIRED", 0, "COMPLETED")
    assert history(expired.id) == ["QUEUED", "EXPIRED"]
    assert work.lines() == [executed.id]


# -- PostgreSQL goes away ---------------------------------------------------------------------------------------------


@contextmanager
def database_away(seconds: float) -> Iterator[None]:
    """Everybody is thrown out, and nobody let in for a while: as a restart looks from outside."""
    name = connection.settings_dict["NAME"]
    connections.close_all()
    close_connection_of_event_loops()
    parameters = {**connection.get_connection_params(), "dbname": "postgres"}
    wanted = ("host", "port", "user", "password", "dbname")
    with psycopg.connect(autocommit=True, **{key: parameters[key] for key in wanted if key in parameters}) as admin:
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        try:
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            time.sleep(seconds)
        finally:
            admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    yield


@pytest.mark.postgres
@pytest.mark.parametrize("task", [f_gate, f_gate_deaf, f_waiting, f_waiting_sync], ids=lambda task: task.id)
def test_a_run_that_goes_on_while_the_database_is_away_completes_with_its_first_attempt(
    task: Any, fleet: Fleet, work: Work, final: Any
) -> None:
    fleet(1)
    final(f_orm_sync.trigger(work()), f_note_sync.trigger(work()))  # connections are open, everywhere
    handle = task.trigger(work())
    eventually(lambda: any(line.startswith(("began", "child began")) for line in work.lines()))
    with database_away(0.5):
        work.open(1)
        work.open(0)
    (run,) = final(handle)
    assert (run.status, run.attempt) == ("COMPLETED", 1), run.error
    assert Attempt.objects.get(run=run).error == ""


@pytest.mark.postgres
@pytest.mark.parametrize("task", [f_orm, f_orm_sync, f_waiting, f_waiting_sync], ids=lambda task: task.id)
def test_after_the_database_was_away_a_task_can_use_it_at_once(task: Any, fleet: Fleet, work: Work, final: Any) -> None:
    fleet(1)
    work.open(1)
    work.open(0)
    final(task.trigger(work()))
    with database_away(0.2):
        pass
    for _ in range(2):  # every place where a connection was left behind
        (run,) = final(task.trigger(work()))
        assert (run.status, run.attempt) == ("COMPLETED", 1), run.error


@pytest.mark.postgres
def test_workers_go_on_claiming_and_nothing_is_lost_while_connections_are_cut_all_the_time(
    fleet: Fleet, work: Work, final: Any
) -> None:
    fleet(2)
    handles = []
    for _ in range(5):
        handles.append(f_note.batch_trigger([work()] * 50))
        with database_away(0.1):
            pass
    for run in final(*handles):
        assert (run.status, run.attempt) == ("COMPLETED", 1)
    assert len(work.lines()) == 250
