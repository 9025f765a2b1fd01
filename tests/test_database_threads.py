import asyncio
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path

import pytest
from django.db import DatabaseError, connection, connections

from realtime_runs.database import DatabaseThreads
from tests.conftest import eventually

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 10  # nothing here should take so long
LONG = 0.5  # for a thread that should still be there when the next work comes


@pytest.fixture
def make_threads():
    """Threads of a short life. All of them are gone when the test is over."""
    made = []

    def make(threads=1, *, kept=0, idle_seconds=0.05):
        made.append(DatabaseThreads(f"test-{len(made)}", threads, kept=kept, idle_seconds=idle_seconds))
        return made[-1]

    yield make
    for threads in made:
        if threads._kept:
            threads._kept = 0
            threads.submit(int).result(SECONDS)  # so that the one that stayed looks again
    eventually(lambda: not names(), message=f"still there: {names()}")


def names():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("test-")]


def query():
    """Use the database; the thread and its connection."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return threading.current_thread(), connections["default"]


def fail(error):
    raise error


@pytest.fixture
def database(transactional_db):
    """A database that other threads see too."""


def test_a_result_comes_back(make_threads):
    assert make_threads().submit(divmod, 7, 3).result(SECONDS) == (2, 1)


async def test_a_result_comes_back_to_an_event_loop(make_threads):
    assert await make_threads().run(int, "11", base=2) == 3


def test_work_of_many_is_done_by_as_many_threads_as_allowed_and_no_more(make_threads):
    threads = make_threads(3)
    now, most = 0, 0
    lock, all_there = threading.Lock(), threading.Barrier(3)

    def job():
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        all_there.wait(SECONDS)  # passes only when three work at once
        with lock:
            now -= 1

    for future in [threads.submit(job) for _ in range(12)]:
        future.result(SECONDS)
    assert most == 3


def test_work_does_not_wait_behind_other_work_while_a_thread_may_be_had(make_threads):
    # With one thread idle: the first job goes to it, and the second one needs another thread.
    for _ in range(10):
        threads, release = make_threads(2, idle_seconds=LONG), threading.Event()
        threads.submit(int).result(SECONDS)
        first = threads.submit(release.wait, SECONDS)
        try:
            threads.submit(release.set).result(SECONDS / 5)
        finally:
            release.set()
        assert first.result(SECONDS)


def test_no_work_is_forgotten_while_threads_come_and_go(make_threads, in_threads):
    # They end almost at once, so that work arrives in every moment of their end.
    threads = make_threads(3, idle_seconds=0.0005)

    def submit_much():
        total = 0
        for number in range(150):
            total += threads.submit(lambda value: value, number).result(SECONDS)
            time.sleep(number % 4 * 0.0004)
        return total

    assert in_threads(4, submit_much) == [sum(range(150))] * 4


def test_idle_threads_end(make_threads):
    threads = make_threads(3)
    barrier = threading.Barrier(3)
    for future in [threads.submit(barrier.wait, SECONDS) for _ in range(3)]:
        future.result(SECONDS)
    eventually(lambda: not names(), message=f"still there: {names()}")
    assert threads.submit(int).result(SECONDS) == 0  # and come back when needed


def test_an_idle_thread_gives_its_connection_back(database, make_threads):
    _, its_connection = make_threads().submit(query).result(SECONDS)
    assert its_connection is not connections["default"]
    eventually(lambda: its_connection.connection is None)


def test_a_thread_that_stays_gives_its_connection_back_too(database, make_threads):
    threads = make_threads(1, kept=1)
    threads.start()
    thread, its_connection = threads.submit(query).result(SECONDS)
    eventually(lambda: its_connection.connection is None)
    assert thread.is_alive()
    again, its_connection = threads.submit(query).result(SECONDS)
    assert again is thread
    eventually(lambda: its_connection.connection is None)


def test_a_busy_thread_keeps_its_connection(database, make_threads):
    threads = make_threads(idle_seconds=LONG)
    one, other = [threads.submit(lambda: query()[1].connection).result(SECONDS) for _ in range(2)]
    assert one is not None
    assert one is other
    threads.submit(lambda: None).result(SECONDS)


def test_an_error_reaches_the_caller_and_the_thread_goes_on(make_threads):
    threads = make_threads()
    with pytest.raises(ZeroDivisionError):
        threads.submit(divmod, 1, 0).result(SECONDS)
    assert threads.submit(int).result(SECONDS) == 0


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()], ids=repr)
def test_even_an_exit_reaches_the_caller_and_the_thread_goes_on(make_threads, error):
    threads = make_threads(idle_seconds=LONG)
    before = threads.submit(threading.current_thread).result(SECONDS)
    with pytest.raises(type(error)):
        threads.submit(fail, error).result(SECONDS)
    assert threads.submit(threading.current_thread).result(SECONDS) is before


async def test_an_error_reaches_the_caller_on_an_event_loop(make_threads):
    with pytest.raises(ValueError, match="no number"):
        await make_threads().run(fail, ValueError("no number"))


def test_a_database_error_drops_the_connection(database, make_threads):
    threads = make_threads(idle_seconds=LONG)

    def bad_query():
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM nowhere")

    _, its_connection = threads.submit(query).result(SECONDS)
    with pytest.raises(DatabaseError, match="nowhere"):
        threads.submit(bad_query).result(SECONDS)
    assert threads.submit(lambda: its_connection.connection).result(SECONDS) is None
    assert threads.submit(query).result(SECONDS)[1] is its_connection


def test_another_error_keeps_the_connection(database, make_threads):
    threads = make_threads(idle_seconds=LONG)
    _, its_connection = threads.submit(query).result(SECONDS)
    before = its_connection.connection
    with pytest.raises(ZeroDivisionError):
        threads.submit(divmod, 1, 0).result(SECONDS)
    assert before is not None
    assert threads.submit(lambda: its_connection.connection).result(SECONDS) is before


@pytest.mark.postgres
def test_a_thread_whose_server_went_away_connects_anew(database, make_threads):
    threads = make_threads(idle_seconds=LONG)

    def backend():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            return cursor.fetchone()[0]

    pid = threads.submit(backend).result(SECONDS)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    with pytest.raises(DatabaseError):
        threads.submit(backend).result(SECONDS)
    assert threads.submit(backend).result(SECONDS) != pid


def test_work_that_was_cancelled_in_time_is_not_done(make_threads):
    threads = make_threads()
    begun, release, done = threading.Event(), threading.Event(), []

    def job():
        begun.set()
        return release.wait(SECONDS)

    running = threads.submit(job)
    assert begun.wait(SECONDS)
    unwanted, wanted = threads.submit(done.append, "unwanted"), threads.submit(done.append, "wanted")
    assert unwanted.cancel()
    assert not running.cancel()  # too late
    release.set()
    assert running.result(SECONDS)
    wanted.result(SECONDS)
    assert done == ["wanted"]
    with pytest.raises(CancelledError):
        unwanted.result(SECONDS)


async def test_whoever_stops_waiting_on_an_event_loop_cancels_the_work(make_threads):
    threads = make_threads()
    release, done = threading.Event(), []
    running = asyncio.ensure_future(threads.run(release.wait, SECONDS))
    waiting = asyncio.ensure_future(threads.run(done.append, "unwanted"))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    release.set()
    assert await running
    await threads.run(int)
    assert done == []
    assert waiting.cancelled()


def test_waiting_callers_block_no_event_loop(make_threads):
    async def scenario():
        threads, release = make_threads(), threading.Event()
        waiting = asyncio.ensure_future(threads.run(release.wait, SECONDS))
        await asyncio.sleep(0)
        release.set()  # only possible because the loop goes on
        return await waiting

    assert asyncio.run(scenario())


PREPARE = """
import os, atexit, threading, time
from django.conf import settings
settings.configure()
from realtime_runs.database import DatabaseThreads
threads = DatabaseThreads("child", 2, kept=1, idle_seconds=0.01)
"""

FORK = """
gate = threading.Event()
busy = threads.submit(gate.wait)  # a thread, and work in the queue, that the child does not have
threads.submit(gate.wait)
later = threads.submit(lambda: "work of the parent")
child = os.fork()
if child == 0:
    print("child", threads.submit(lambda: 6 * 7).result(10), flush=True)
    os._exit(0)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
gate.set()
print(later.result(10), code)
"""

SHUTDOWN = """
threads.start()
print("before", threads.submit(int).result(10))
time.sleep(0.1)  # long enough for a thread that does not stay
atexit.register(lambda: print("at exit", threads.submit(lambda: 6 * 7).result(10), flush=True))
"""


def run_script(script):
    # The warning about threads and fork is right, and this is what it is about.
    arguments = [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", PREPARE + script]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_a_forked_child_has_threads_of_its_own():
    assert sorted(run_script(FORK)) == ["child 42", "work of the parent 0"]


def test_a_thread_that_stays_works_while_the_interpreter_shuts_down():
    assert run_script(SHUTDOWN) == ["before 0", "at exit 42"]
