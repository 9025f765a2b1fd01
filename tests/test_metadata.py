import json
import threading

import pytest
from django.core.exceptions import SynchronousOnlyOperation
from django.db import OperationalError, transaction

from realtime_runs import metadata, runs, tags
from realtime_runs.engine import editing, lifecycle
from realtime_runs.engine.buffer import MetadataBuffer
from realtime_runs.engine.context import Lease
from realtime_runs.engine.operations import Operation
from realtime_runs.engine.writer import InlineWriter
from realtime_runs.exceptions import InvalidOption, LeaseLost, NotInsideRun, NotJson, TooLarge
from realtime_runs.models import FromNow, Run
from realtime_runs.testing import execute_queued_runs
from tests import tasks as t

pytestmark = pytest.mark.django_db


@pytest.fixture
def inside(monkeypatch):
    """`inside(fn)`: run `fn` as a sync task; the final snapshot."""

    def run(fn, task=t.echo_sync, **options):
        monkeypatch.setattr(task, "function", fn)
        handle = task.trigger(None, max_attempts=1, **options)
        execute_queued_runs()
        return runs.retrieve(handle)

    return run


def test_operations_can_be_chained_and_are_stored_before_the_end(inside):
    def work(payload):
        metadata.set("progress", {"current": 1}).increment("rows", 5).append("log", "a").append("log", "b")
        metadata.set("$.progress.current", 2).decrement("rows").remove("log", "a").set("gone", 1).delete("gone")

    assert inside(work).metadata == {"progress": {"current": 2}, "rows": 4, "log": ["b"]}


def test_the_task_reads_what_it_set_before_it_is_written(inside):
    def work(payload):
        metadata.set("a", {"b": 1})
        copy = metadata.current()
        copy["a"]["b"] = 99
        return [metadata.get("a"), metadata.get("missing", 7), Run.objects.get().metadata]

    assert inside(work).output == [{"b": 1}, 7, "{}"]


def test_a_value_that_is_changed_after_it_was_set_does_not_change_what_is_stored(inside):
    def work(payload):
        progress = {"n": 1}
        metadata.set("progress", progress)
        progress["n"] = 2

    assert inside(work).metadata == {"progress": {"n": 1}}


def test_metadata_given_at_the_trigger_is_the_start(inside):
    assert inside(lambda payload: metadata.increment("n", 2), metadata={"n": 40}).metadata == {"n": 42}


def test_replace_replaces_everything(inside):
    assert inside(lambda payload: metadata.set("a", 1).replace({"b": 2}), metadata={"c": 3}).metadata == {"b": 2}


def test_flush_writes_at_once(inside):
    def work(payload):
        metadata.set("a", 1)
        metadata.flush()
        return json.loads(Run.objects.get().metadata)

    assert inside(work).output == {"a": 1}


def test_flush_does_not_block_an_event_loop(inside):
    async def work(payload):
        metadata.set("a", 1)
        with pytest.raises(SynchronousOnlyOperation, match="aflush"):
            metadata.flush()
        await metadata.aflush()

    run = inside(work, t.echo)
    assert (run.status, run.metadata) == ("COMPLETED", {"a": 1})


def test_a_failed_attempt_keeps_the_metadata_it_set(inside):
    def work(payload):
        metadata.set("got", "so far")
        raise ValueError

    run = inside(work)
    assert (run.status, run.metadata) == ("FAILED", {"got": "so far"})


def test_parent_and_root_are_the_runs_above(monkeypatch):
    async def family(payload):
        if payload == "grandchild":
            metadata.set("me", "grandchild")
            metadata.parent.increment("children", 1)
            metadata.root.append("log", "from below")
        elif payload == "child":
            await t.echo.atrigger_and_wait("grandchild")
        else:
            metadata.set("me", "top")
            await t.echo.atrigger_and_wait("child")

    monkeypatch.setattr(t.echo, "function", family)
    top_id = t.echo.trigger("top").id
    execute_queued_runs()
    by_payload = {run.payload: run for run in runs.list(task="t-echo")}
    top, child, grandchild = by_payload["top"], by_payload["child"], by_payload["grandchild"]
    assert top.metadata == {"me": "top", "log": ["from below"]}
    assert child.metadata == {"children": 1}
    assert grandchild.metadata == {"me": "grandchild"}
    assert (grandchild.parent_id, grandchild.root_id, grandchild.depth) == (child.id, top_id, 2)


def test_a_run_without_parent_takes_the_operations_itself(inside):
    def work(payload):
        metadata.parent.set("a", 1)
        metadata.root.set("b", 2)

    assert inside(work).metadata == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: metadata.set("big", "x" * 256 * 1024), TooLarge),
        (lambda: metadata.set("nan", float("nan")), NotJson),
        (lambda: metadata.set("a\0", 1), NotJson),
        (lambda: metadata.set("a", "\ud800"), NotJson),
        (lambda: metadata.set("a", object()), NotJson),
        (lambda: metadata.set(7, 1), InvalidOption),
        (lambda: metadata.set("__proto__", 1), InvalidOption),
        (lambda: metadata.increment("n", "1"), InvalidOption),
    ],
)
def test_a_bad_value_is_an_error_at_the_call_and_changes_nothing(inside, call, error):
    def work(payload):
        metadata.set("before", 1)
        with pytest.raises(error):
            call()
        metadata.set("after", 2)

    run = inside(work)
    assert (run.status, run.metadata) == ("COMPLETED", {"before": 1, "after": 2})


def test_the_limit_counts_bytes_of_the_whole_object(inside):
    def work(payload):
        metadata.set("a", "é" * (128 * 1024 - 5))  # {"a":"…"} is 8 bytes more
        with pytest.raises(TooLarge, match="262,14"):
            metadata.set("b", "é")

    assert inside(work).status == "COMPLETED"


@pytest.mark.parametrize(
    "call", [lambda: metadata.set("a", 1), metadata.current, metadata.flush, lambda: tags.add("a")]
)
def test_outside_of_a_task_it_is_an_error(call):
    with pytest.raises(NotInsideRun):
        call()


def test_tags_are_added_inside_a_run(inside):
    run = inside(lambda payload: list(tags.add(["b", "c"])), tags=["a"])
    assert (run.output, run.tags) == (["a", "b", "c"], ("a", "b", "c"))


# -- the buffer -------------------------------------------------------------------------------------------------------


class RecordingWriter(InlineWriter):
    """Counts writes, and fails as often as it is told to."""

    def __init__(self) -> None:
        self.writes = 0
        self.failures = 0

    def write(self, fn):
        self.writes += 1
        if self.failures:
            self.failures -= 1
            raise OperationalError("the database is away")
        return super().write(fn)


@pytest.fixture
def buffered():
    """A buffer over a claimed run; `later` collects what it wants to do later instead of doing it."""
    handle = t.echo.trigger(1)
    (row,) = lifecycle.claim(["t-echo"], 1, run_ids=[handle.id])
    writer = RecordingWriter()
    later: list[float] = []
    lease = Lease(row.id, row.attempt, row.lease_token)
    made = MetadataBuffer(runs.retrieve(handle), lease, writer, lambda seconds, fn: later.append(seconds))
    made.later = later
    made.writer = writer
    made.run_id = handle.id
    return made


def stored(run_id):
    return json.loads(Run.objects.get(pk=run_id).metadata)


def test_many_operations_are_one_write(buffered):
    for n in range(100):
        buffered.record(buffered.run_id, Operation("increment", "n", 1))
        buffered.record(buffered.run_id, Operation("set", "at", n))
    assert len(buffered.later) == 1, "one flush is scheduled"
    buffered.flush()
    buffered.flush()
    assert buffered.writer.writes == 1
    assert stored(buffered.run_id) == {"n": 100, "at": 99}


def test_after_a_flush_the_next_one_waits_its_turn(buffered):
    buffered.record(buffered.run_id, Operation("set", "a", 1))
    assert buffered.later == [0.0], "the first one is written at once"
    buffered.flush()
    buffered.record(buffered.run_id, Operation("set", "a", 2))
    assert 0.05 < buffered.later[1] <= 0.1


def test_a_failed_flush_is_raised_and_its_operations_stay_in_order(buffered):
    buffered.record(buffered.run_id, Operation("append", "log", 1))
    buffered.writer.failures = 1
    with pytest.raises(OperationalError):
        buffered.flush()
    buffered.record(buffered.run_id, Operation("append", "log", 2))
    buffered.flush()
    assert stored(buffered.run_id) == {"log": [1, 2]}


def test_a_lost_lease_writes_nothing(buffered):
    buffered.record(buffered.run_id, Operation("set", "a", 1))
    runs.cancel(buffered.run_id)
    with pytest.raises(LeaseLost):
        buffered.flush()
    assert stored(buffered.run_id) == {}


def test_what_others_wrote_meanwhile_is_kept(buffered):
    Run.objects.filter(pk=buffered.run_id).update(metadata='{"theirs": 1, "n": 10}')
    buffered.record(buffered.run_id, Operation("increment", "n", 1))
    buffered.flush()
    assert stored(buffered.run_id) == buffered.current == {"theirs": 1, "n": 11}


def test_too_much_for_a_run_above_refuses_only_what_does_not_fit(buffered):
    above = t.echo.trigger(1).id
    buffered.record(above, Operation("set", "small", 1))
    buffered.record(above, Operation("set", "a", "x" * 200_000))
    buffered.record(above, Operation("set", "b", "x" * 200_000))
    with pytest.raises(TooLarge):
        buffered.flush()
    assert set(stored(above)) == {"small", "a"}


def test_what_becomes_too_deep_in_a_run_above_is_refused_and_not_tried_for_ever(buffered):
    above = t.echo.trigger(1).id
    deep = json.loads("[" * 60 + "]" * 60)
    buffered.record(above, Operation("set", "a", deep))
    buffered.record(above, Operation("set", "$.a" + ".0" * 59 + ".0", deep))
    with pytest.raises(NotJson):
        buffered.flush()
    buffered.flush()
    assert stored(above) == {"a": deep}


def test_writing_the_same_again_is_no_change(buffered):
    buffered.record(buffered.run_id, Operation("set", "a", 1))
    buffered.flush()
    version = Run.objects.get(pk=buffered.run_id).version
    buffered.record(buffered.run_id, Operation("set", "a", 1))
    buffered.flush()
    assert Run.objects.get(pk=buffered.run_id).version == version


@pytest.mark.django_db(transaction=True)
def test_concurrent_writers_lose_nothing(in_threads):
    top = t.echo.trigger(1, delay=60).id
    children = []
    for _ in range(8):
        handle = t.echo.trigger(1, delay=60)
        Run.objects.filter(pk=handle.id).update(status="QUEUED", run_at=FromNow())
        (row,) = lifecycle.claim(["t-echo"], 1, run_ids=[handle.id])
        children.append(Lease(row.id, row.attempt, row.lease_token))
    position = iter(children)
    lock = threading.Lock()

    def write():
        with lock:
            lease = next(position)
        for n in range(20):
            with transaction.atomic():
                editing.edit_metadata(lease, {top: [Operation("increment", "n", 1), Operation("append", "log", n)]})

    assert in_threads(8, write) == [None] * 8
    assert stored(top)["n"] == len(stored(top)["log"]) == 160
