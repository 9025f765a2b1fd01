"""Storing chunks: what one transaction decides for many appends, and the group commit that brings them together."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from realtime_runs import runs, streams
from realtime_runs.engine import lifecycle, writer
from realtime_runs.engine.appending import Append, append_all
from realtime_runs.engine.context import Lease
from realtime_runs.engine.writer import process_writer
from realtime_runs.exceptions import LeaseLost, RunNotFound, StreamClosed
from realtime_runs.live.chunks import End
from realtime_runs.models import Run, Stream, StreamChunk, StreamName
from realtime_runs.models.stream import OUTPUT
from tests import tasks as t
from tests.conftest import eventually
from tests.stored_chunks import stored_chunks

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("nobody_executes"),
]

log = streams.define("log", str)


@pytest.fixture
def run_id() -> str:
    return t.echo.trigger(1).id


def one(run_id: str, *chunks: bytes, key: str = "log", **more: Any) -> Append:
    return Append(StreamName(run_id, OUTPUT, key), list(chunks), **more)


def kinds(results: list[Any]) -> list[Any]:
    return [result if isinstance(result, list) else type(result) for result in results]


# -- one transaction --------------------------------------------------------------------------------------------------


def test_appends_of_one_transaction_are_stored_in_their_order(run_id):
    other = t.echo.trigger(2).id
    appends = [one(run_id, b"1", b"2"), one(other, b"3"), one(run_id, b"4"), one(run_id, b"5", key="b")]
    assert append_all(appends) == [[0, 1], [0], [2], [0]]
    assert stored_chunks(run_id) == [b"1", b"2", b"4"]
    assert (stored_chunks(other), stored_chunks(run_id, "b")) == ([b"3"], [b"5"])
    assert sorted(runs.retrieve(run_id).realtime_streams) == ["b", "log"]


def test_who_is_refused_takes_nothing_from_the_others(run_id):
    final, closed = t.echo.trigger(2).id, t.echo.trigger(3).id
    runs.cancel(final)
    log.close(target=closed)
    appends = [
        *(one(final, b"1"), one(run_id, b"2"), one("run_missing", b"3"), one(closed, b"4")),
        *(one(run_id, b"5", lease=Lease(run_id, 1, "lost")), one(run_id, b"6")),
    ]
    assert kinds(append_all(appends)) == [StreamClosed, [0], RunNotFound, StreamClosed, LeaseLost, [1]]
    assert stored_chunks(run_id) == [b"2", b"6"]
    assert StreamChunk.objects.count() == 2


def test_what_comes_behind_the_end_in_the_same_transaction_is_refused(run_id):
    appends = [one(run_id, b"1"), one(run_id, b"2", closes=End("closed")), one(run_id, b"3")]
    assert kinds(append_all(appends)) == [[0], [1], StreamClosed]
    assert list(streams.read(run_id, "log")) == [1, 2]


def test_of_a_repeated_batch_only_what_is_missing_is_stored(run_id):
    append_all([one(run_id, b"0", b"1", producer="p", sequences=[0, 1])])
    append_all([one(run_id, b"other")])
    again = one(run_id, b"0", b"1", b"2", b"3", producer="p", sequences=[0, 1, 2, 3])
    assert append_all([again]) == [[0, 1, 3, 4]]
    assert stored_chunks(run_id) == [b"0", b"1", b"other", b"2", b"3"]


def test_what_was_stored_before_the_end_may_be_repeated_behind_it_and_what_was_not_may_not(run_id):
    append_all([one(run_id, b"0", producer="p", sequences=[0])])
    runs.cancel(run_id)
    repeated, more = (one(run_id, *numbers, producer="p", sequences=[0, 1][: len(numbers)]) for numbers in ("0", "01"))
    assert kinds(append_all([repeated, more])) == [[0], StreamClosed]
    assert stored_chunks(run_id) == [b"0"]


def test_a_lease_of_another_run_decides_and_its_attempt_is_not_that_of_the_stream(run_id):
    """As with a child that writes into its parent's stream."""
    child = t.echo.trigger(2).id
    (row,) = lifecycle.claim([t.echo.id], 1, run_ids=[child])
    lease = Lease(row.id, row.attempt, row.lease_token)
    assert append_all([one(run_id, b"1", lease=lease)]) == [[0]]
    runs.cancel(child)
    assert kinds(append_all([one(run_id, b"2", lease=lease)])) == [LeaseLost]
    assert [chunk.attempt for chunk in StreamChunk.objects.all()] == [0]


@pytest.mark.parametrize("whose", ["the first attempt of the run", "a child that is tried again"])
def test_only_a_later_attempt_of_the_run_goes_on_with_a_stream_that_was_closed(run_id, whose):
    writer_id = run_id if whose.startswith("the first") else t.echo.trigger(2).id
    (row,) = lifecycle.claim([t.echo.id], 1, run_ids=[writer_id])
    lease = Lease(row.id, row.attempt, row.lease_token)
    log.append("a", target=run_id)
    log.close(target=run_id)
    assert kinds(append_all([one(run_id, b"2", lease=lease)])) == [StreamClosed]
    assert list(log.read(run_id)) == ["a"]


# -- group commit -----------------------------------------------------------------------------------------------------


class Transactions:
    """The appends of each transaction of the group commit, which can be held before they are stored."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        self.errors: list[Exception] = []
        self._may_go_on = threading.Event()
        self._may_go_on.set()
        monkeypatch.setattr(writer, "append_all", self._append_all)

    def _append_all(self, appends: list[Append]) -> Any:
        self.sizes.append(len(appends))
        assert self._may_go_on.wait(20)
        if self.errors:
            raise self.errors.pop()
        return append_all(appends)

    def hold(self) -> None:
        self._may_go_on.clear()

    def let_go(self) -> None:
        self._may_go_on.set()


@pytest.fixture
def transactions(monkeypatch) -> Iterator[Transactions]:
    found = Transactions(monkeypatch)
    yield found
    found.let_go()
    process_writer().flush()


@pytest.fixture
def beside() -> Iterator[Callable[..., list[Any]]]:
    """`beside(n, fn)`: n threads call fn(number); the list fills with what each returned or raised."""
    threads: list[threading.Thread] = []

    def start(count: int, fn: Callable[[int], Any]) -> list[Any]:
        outcomes: list[Any] = []

        def call(number: int) -> None:
            try:
                outcomes.append(fn(number))
            except Exception as error:
                outcomes.append(error)
            finally:
                connections.close_all()

        new = [threading.Thread(target=call, args=(number,), daemon=True) for number in range(count)]
        for thread in new:
            thread.start()
        threads.extend(new)
        return outcomes

    yield start
    for thread in threads:
        thread.join(20)


def waiting() -> int:
    return len(process_writer()._waiting)


def writing_threads() -> int:
    return process_writer()._most


def hold_all_threads(transactions: Transactions, beside: Any, run_id: str) -> None:
    """Each thread of the writer has begun a transaction and holds it."""
    transactions.hold()
    transactions.sizes.clear()
    for number in range(writing_threads()):
        beside(1, lambda _: streams.append("first", 1, target=run_id))
        eventually(lambda wanted=number + 1: len(transactions.sizes) == wanted)


def test_what_waits_while_one_transaction_runs_goes_into_the_next_one_together(run_id, transactions, beside):
    hold_all_threads(transactions, beside, run_id)
    outcomes = beside(50, lambda number: log.append(str(number), target=run_id))
    eventually(lambda: waiting() == 50)
    transactions.let_go()
    eventually(lambda: len(outcomes) == 50, timeout=20)
    assert sorted(outcomes) == list(range(50))
    assert transactions.sizes == [*[1] * writing_threads(), 50]


def test_of_many_threads_each_keeps_its_own_order(run_id, beside):
    keys = ["a", "b"]

    def write(number: int) -> list[int]:
        return [streams.append(keys[number % 2], [number, step], target=run_id) for step in range(25)]

    outcomes = beside(16, write)
    eventually(lambda: len(outcomes) == 16, timeout=30)
    assert all(indexes == sorted(indexes) for indexes in outcomes)
    runs.cancel(run_id)
    for place, key in enumerate(keys):
        found = list(streams.read(run_id, key))
        assert len(found) == 8 * 25
        for number in range(place, 16, 2):
            assert [step for who, step in found if who == number] == list(range(25))


def test_the_chunks_of_a_writer_keep_their_order_when_a_transaction_fails(run_id, transactions):
    with log.writer(target=run_id) as to:
        for number in range(500):
            to.write(str(number))
            if number in (20, 200, 400):
                transactions.errors.append(OperationalError("the database went away"))
    runs.cancel(run_id)
    assert list(log.read(run_id)) == [str(number) for number in range(500)]


class LostAnswers:
    """The transaction is committed, and whoever asked for that hears that the connection was lost."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 0
        commit = BaseDatabaseWrapper._commit

        def commit_and_lose(connection: BaseDatabaseWrapper) -> None:
            commit(connection)
            if self.left and threading.current_thread().name.startswith("realtime-runs-write"):
                self.left -= 1
                raise OperationalError("server closed the connection unexpectedly")

        monkeypatch.setattr(BaseDatabaseWrapper, "_commit", commit_and_lose)


@pytest.fixture
def lost_answers(monkeypatch) -> LostAnswers:
    return LostAnswers(monkeypatch)


@pytest.mark.parametrize("times", [1, 2])
def test_a_commit_whose_answer_got_lost_is_repeated_without_doubles(run_id, transactions, beside, lost_answers, times):
    log.append("before", target=run_id)
    reader = iter(log.read(run_id))
    assert next(reader) == "before"
    hold_all_threads(transactions, beside, run_id)
    outcomes = beside(20, lambda number: log.append(str(number), target=run_id))
    eventually(lambda: waiting() == 20)
    lost_answers.left = times
    transactions.let_go()
    eventually(lambda: len(outcomes) == 20, timeout=20)
    assert lost_answers.left == 0
    assert sorted(outcomes) == list(range(1, 21))
    assert sorted(next(reader) for _ in range(20)) == sorted(map(str, range(20)))
    assert len(stored_chunks(run_id)) == 21


def test_a_close_whose_answer_got_lost_is_no_error(run_id, lost_answers):
    log.append("a", target=run_id)
    lost_answers.left = 1
    log.close(target=run_id)
    assert (lost_answers.left, Stream.objects.get().end_reason) == (0, "closed")


def test_the_same_write_twice_in_one_transaction_is_stored_once(run_id, transactions, beside):
    hold_all_threads(transactions, beside, run_id)
    by_sequence = beside(5, lambda _: log.append("a", target=run_id, producer="p", sequence=0))
    by_record = beside(5, lambda _: streams.append("other", "a", target=run_id, record_id="r"))
    eventually(lambda: waiting() == 10)
    transactions.let_go()
    eventually(lambda: len(by_sequence) == len(by_record) == 5, timeout=20)
    assert by_sequence == by_record == [0] * 5
    assert (stored_chunks(run_id), stored_chunks(run_id, "other")) == ([b'"a"'], [b'"a"'])


@pytest.mark.parametrize("kind", ["threads", "tasks"])
def test_who_appends_waits_while_too_many_bytes_wait_for_their_commit(settings, run_id, transactions, beside, kind):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "APPEND_BACKLOG_BYTES": 1000}
    chunk = "x" * 398  # 400 bytes with its quotes

    async def in_tasks() -> list[int]:
        return await asyncio.gather(*(log.aappend(chunk, target=run_id) for _ in range(12)))

    hold_all_threads(transactions, beside, run_id)
    if kind == "threads":
        outcomes = beside(12, lambda _: log.append(chunk, target=run_id))
    else:
        outcomes = beside(1, lambda _: asyncio.run(in_tasks()))
    eventually(lambda: waiting() == 3)
    assert [process_writer()._backlog, outcomes] == [1200, []]
    threading.Event().wait(0.1)
    assert waiting() <= 4, "room for one more may be seen by two threads at once"
    transactions.let_go()
    eventually(lambda: len(outcomes) == (12 if kind == "threads" else 1), timeout=20)
    assert sorted(outcomes if kind == "threads" else outcomes[0]) == list(range(12))
    assert process_writer()._backlog == 0


def test_flush_returns_when_everything_is_stored(run_id, transactions):
    transactions.hold()
    futures = [process_writer().submit(one(run_id, b"%d" % number)) for number in range(5)]
    process_writer().flush(timeout=0.05)
    assert not any(future.done() for future in futures)
    transactions.let_go()
    process_writer().flush()
    assert len(stored_chunks(run_id)) == 5


def test_flush_waits_for_what_is_repeated_after_an_error(run_id, transactions, monkeypatch):
    may_go_on = threading.Event()
    write_alone = writer._write_alone
    monkeypatch.setattr(writer, "_write_alone", lambda write: may_go_on.wait(20) and write_alone(write))
    transactions.errors.append(OperationalError("the database went away"))
    future = process_writer().submit(one(run_id, b"1"))
    eventually(lambda: not transactions.errors)
    threading.Timer(0.3, may_go_on.set).start()
    process_writer().flush()
    assert future.done()


def test_a_run_that_came_back_under_its_id_gets_a_new_stream(run_id):
    """The writer remembers the streams that it has seen."""
    log.append("old", target=run_id)
    row = Run.objects.get(pk=run_id)
    Run.objects.all().delete()
    with pytest.raises(RunNotFound):
        log.append("none", target=run_id)
    row.save(force_insert=True)
    assert log.append("new", target=run_id) == 0
    assert stored_chunks(run_id) == [b'"new"']
