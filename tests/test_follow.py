"""Following, as a reader sees it: what comes, in which order, and when it ends."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connections
from django.utils import timezone

from realtime_runs import batch, runs
from realtime_runs.exceptions import BatchNotFound, InvalidOption, RunNotFound, TooLarge
from realtime_runs.live import bell, follow, listeners
from realtime_runs.live.hub import hub
from realtime_runs.models import Run
from realtime_runs.runs import RealtimeRun, Subscription
from realtime_runs.statuses import RunStatus
from tests import tasks as t
from tests.conftest import eventually
from tests.following import Reader, everybody_left, later, later_in_batch, touch

# Emptying only our own tables after each test takes half the time.
pytestmark = pytest.mark.django_db(transaction=True)

HOSTILE_TAGS = ["é", "user:1", "a,b", "x" * 128, "😀" * 128, "\u202e", "a b", "%", "..", "'; --", "{a}", "a\nb"]


@pytest.fixture(autouse=True)
def _bells_only(live):
    """A test that sees a change has seen it because of its bell."""


@pytest.fixture(params=["for", "async for"])
def follow_by(request):
    """`follow_by(subscription)`: a reader, once for each kind of loop; ended with the test."""
    readers: list[Reader] = []

    def start(subscription: Subscription[Any, Any], **options: Any) -> Reader:
        readers.append(Reader(subscription, request.param, **options))
        return readers[-1]

    yield start
    for reader in readers:
        reader.stop()


# -- one run ----------------------------------------------------------------------------------------------------------


def test_the_first_item_is_the_current_state(follow_by):
    run_id = later(metadata={"step": 3})
    runs.add_tags(run_id, "a")
    (run,) = follow_by(runs.subscribe_to_run(run_id)).began().items
    assert (run.id, run.version, run.status, run.tags, run.metadata) == (
        run_id,
        2,
        RunStatus.DELAYED,
        ("a",),
        {"step": 3},
    )


def test_a_final_run_is_one_item(follow_by):
    run_id = t.echo.trigger("x").id
    (run,) = follow_by(runs.subscribe_to_run(run_id)).ended()
    assert (run.status, run.output) == (RunStatus.COMPLETED, "x")


def test_an_unknown_run_is_an_error_of_the_loop(follow_by):
    subscription = runs.subscribe_to_run("run_unknown")
    with pytest.raises(RunNotFound, match="run_unknown"):
        follow_by(subscription).ended()


def test_each_change_comes_and_the_final_one_ends_the_loop(follow_by):
    run_id = later()
    reader = follow_by(runs.subscribe_to_run(run_id)).began()
    for _ in range(3):
        reader.saw(run_id, touch(run_id))
    runs.cancel(run_id)
    seen = reader.ended()
    assert [run.version for run in seen] == [1, 2, 3, 4, 5]
    assert [run.is_completed for run in seen] == [False, False, False, False, True]


def test_a_run_is_followed_beyond_its_end_when_that_is_wanted(follow_by):
    run_id = t.echo.trigger(1).id
    reader = follow_by(runs.subscribe_to_run(run_id, stop_on_completion=False)).began()
    reader.saw(run_id, runs.add_tags(run_id, "late").version)
    assert not reader.has_ended


def test_changes_of_other_runs_do_not_come(follow_by):
    run_id, other = later(tags="a"), later(tags="a")
    reader = follow_by(runs.subscribe_to_run(run_id)).began()
    touch(other)
    reader.saw(run_id, touch(run_id))
    assert set(reader.newest) == {run_id}


def test_a_run_is_named_by_its_id_a_handle_a_snapshot_or_a_row(follow_by):
    handle = t.echo.trigger(1)
    for argument in (handle.id, handle, runs.retrieve(handle), Run.objects.get()):
        assert [run.id for run in follow_by(runs.subscribe_to_run(argument)).ended()] == [handle.id]


def test_a_snapshot_has_the_types_of_its_task(follow_by):
    handle = t.order.trigger({"items": ["a", "b"]})
    (run,) = follow_by(runs.subscribe_to_run(handle)).ended()
    assert run.payload == t.Order(items=["a", "b"])
    assert run.output == t.Receipt(processed=2)


def test_each_loop_over_a_subscription_reads_from_the_start(follow_by):
    subscription = runs.subscribe_to_run(t.echo.trigger(1))
    assert [len(follow_by(subscription).ended()) for _ in range(2)] == [1, 1]


# -- a batch ----------------------------------------------------------------------------------------------------------


def test_the_runs_of_a_batch_come_in_the_order_of_its_items(follow_by):
    batch_id, run_ids = later_in_batch(20)
    reader = follow_by(runs.subscribe_to_batch(batch_id))
    eventually(lambda: len(reader.items) == 20)
    assert tuple(reader.newest) == run_ids


def test_a_batch_ends_with_its_last_run_when_that_is_wanted(follow_by):
    batch_id, run_ids = later_in_batch(3)
    runs.cancel(run_ids[0])
    reader = follow_by(runs.subscribe_to_batch(batch_id, stop_on_completion=True)).began()
    runs.cancel(run_ids[1])
    reader.saw(run_ids[1], 2)
    assert not reader.has_ended
    runs.cancel(run_ids[2])
    assert {run.id for run in reader.ended() if run.is_completed} == set(run_ids)


def test_a_batch_that_is_over_gives_its_runs_and_ends(follow_by):
    handle = t.echo.batch_trigger([1, 2])
    seen = follow_by(runs.subscribe_to_batch(handle, stop_on_completion=True)).ended()
    assert [(run.id, run.output) for run in seen] == list(zip(handle.run_ids, [1, 2], strict=True))


def test_a_batch_is_followed_beyond_its_end_otherwise(follow_by):
    handle = t.echo.batch_trigger([1, 2])
    reader = follow_by(runs.subscribe_to_batch(handle)).began()
    reader.saw(handle.run_ids[1], runs.add_tags(handle.run_ids[1], "late").version)
    assert not reader.has_ended


def test_a_batch_of_which_all_runs_were_there_before_is_over(follow_by):
    item = {"task": t.echo, "payload": 1, "options": {"idempotency_key": "k"}}
    batch.trigger([item])
    assert follow_by(runs.subscribe_to_batch(batch.trigger([item]), stop_on_completion=True)).ended() == []


def test_an_unknown_batch_is_an_error_of_the_loop(follow_by):
    subscription = runs.subscribe_to_batch("batch_unknown")
    with pytest.raises(BatchNotFound, match="batch_unknown"):
        follow_by(subscription).ended()


# -- tags -------------------------------------------------------------------------------------------------------------


def test_tagged_runs_come_oldest_first_and_then_as_they_change(follow_by):
    old = [later(tags="a") for _ in range(3)]
    reader = follow_by(runs.subscribe_to_runs_with_tag("a"))
    eventually(lambda: list(reader.newest) == old)
    new = later(tags=["a", "b"])
    reader.saw(new, 1).saw(old[0], touch(old[0]))
    assert list(reader.newest) == [*old, new]


def test_a_final_run_does_not_end_a_tag(follow_by):
    first = later(tags="a")
    reader = follow_by(runs.subscribe_to_runs_with_tag("a")).began()
    runs.cancel(first)
    reader.saw(first, 2).saw(later(tags="a"), 1)
    assert not reader.has_ended


def test_a_run_joins_when_it_gets_the_tag(follow_by):
    stranger, known = later(), later(tags="a")
    reader = follow_by(runs.subscribe_to_runs_with_tag("a")).began()
    assert set(reader.newest) == {known}
    reader.saw(stranger, runs.add_tags(stranger, "a").version)


def test_of_several_tags_all_must_be_there(follow_by):
    both = later(tags=["a", "b", "c"])
    one, two = later(tags="a"), later(tags="b")
    reader = follow_by(runs.subscribe_to_runs_with_tag(["b", "a"])).began()
    touch(one)
    touch(two)
    reader.saw(one, runs.add_tags(one, "b").version).saw(both, touch(both))
    assert reader.versions(one) == [3], "it came before it had both tags"
    assert set(reader.newest) == {both, one}


def test_every_tag_that_a_run_may_have_can_be_followed(follow_by):
    for tag in HOSTILE_TAGS:
        other = later(tags=[tag[:-1] + "!", "other"])
        old = later(tags=tag)
        reader = follow_by(runs.subscribe_to_runs_with_tag(tag)).saw(old, 1)
        reader.saw(later(tags=[tag, "z"]), 1).saw(old, touch(old))
        assert other not in reader.newest


def test_tags_that_no_run_can_have_are_refused():
    for nothing in ("", "  ", [], [" "]):
        with pytest.raises(InvalidOption):
            runs.subscribe_to_runs_with_tag(nothing)
    for too_much in ("x" * 129, [str(number) for number in range(11)]):
        with pytest.raises(TooLarge):
            runs.subscribe_to_runs_with_tag(too_much)


def aged(run_id: str, **age: float) -> str:
    Run.objects.filter(pk=run_id).update(created_at=timezone.now() - timedelta(**age))
    return run_id


def test_the_first_list_looks_back_so_far_and_changes_come_of_older_runs_too(follow_by):
    old, young = aged(later(tags="a"), minutes=61), aged(later(tags="a"), minutes=59)
    reader = follow_by(runs.subscribe_to_runs_with_tag("a", look_back="1h")).began()
    assert set(reader.newest) == {young}
    reader.saw(old, touch(old))


def test_the_first_list_looks_back_a_day_when_nothing_is_said(follow_by):
    aged(later(tags="a"), hours=25)
    young = aged(later(tags="a"), hours=23)
    assert set(follow_by(runs.subscribe_to_runs_with_tag("a")).began().newest) == {young}


def test_the_first_list_holds_the_newest_runs(follow_by, live):
    live(FEED_MAX_RUNS=3)
    ids = []
    for _ in range(5):
        ids.append(later(tags="a"))
        time.sleep(0.002)  # ids are in the order of their milliseconds
    reader = follow_by(runs.subscribe_to_runs_with_tag("a"))
    eventually(lambda: len(reader.items) == 3)
    reader.saw(ids[0], touch(ids[0]))
    assert [run.id for run in reader.items] == [*sorted(ids)[-3:], ids[0]]


# -- leaving ----------------------------------------------------------------------------------------------------------


def test_a_loop_that_ends_by_itself_releases_everything(follow_by):
    follow_by(runs.subscribe_to_run(t.echo.trigger(1))).ended()
    everybody_left()


def test_a_loop_that_failed_to_start_releases_everything(follow_by):
    with pytest.raises(RunNotFound):
        follow_by(runs.subscribe_to_run("run_unknown")).ended()
    everybody_left()


def test_close_ends_a_loop_that_waits(follow_by):
    reader = follow_by(runs.subscribe_to_runs_with_tag("a"))
    eventually(lambda: hub.listener_count == 1)
    reader.subscription.close()
    assert reader.ended() == []
    everybody_left()


def test_close_ends_every_loop_of_the_subscription(follow_by):
    run_id = later()
    subscription = runs.subscribe_to_run(run_id)
    readers = [follow_by(subscription).began() for _ in range(3)]
    subscription.close()
    assert [len(reader.ended()) for reader in readers] == [1, 1, 1]
    everybody_left()


def test_a_closed_subscription_gives_nothing(follow_by):
    subscription = runs.subscribe_to_run(t.echo.trigger(1))
    subscription.close()
    assert follow_by(subscription).ended() == []


def test_close_reaches_a_loop_that_is_just_starting(follow_by):
    """Between its look whether it is closed and its entry in the list of those to be told."""
    subscription = runs.subscribe_to_run(later())

    class ClosedInBetween(type(subscription._listeners)):
        def add(self, follower: Any) -> None:
            threading.Thread(target=subscription.close).start()
            time.sleep(0.1)  # it may close now, or may have to wait for us
            super().add(follower)

    subscription._listeners = ClosedInBetween()
    follow_by(subscription).ended()


def test_nothing_comes_after_close(follow_by):
    for _ in range(3):
        later(tags="a")
    reader = follow_by(CloseAtFirst(runs.subscribe_to_runs_with_tag("a")))
    assert len(reader.ended()) == 1


class CloseAtFirst:
    """A subscription whose reader closes it in its loop."""

    def __init__(self, subscription: Subscription[Any, Any]) -> None:
        self._subscription = subscription
        self.close = subscription.close

    def __iter__(self) -> Iterable[RealtimeRun]:
        for run in self._subscription:
            self.close()
            yield run

    async def __aiter__(self) -> Any:
        async for run in self._subscription:
            self.close()
            yield run


def test_leaving_a_for_loop_releases_everything():
    run_id = later()
    for _ in runs.subscribe_to_run(run_id):
        break
    with pytest.raises(ZeroDivisionError):
        for _ in runs.subscribe_to_run(run_id):
            raise ZeroDivisionError
    with runs.subscribe_to_run(run_id) as subscription:
        next(iter(subscription))
    everybody_left()


def test_leaving_an_async_for_loop_releases_everything():
    run_id = later()

    async def leave() -> None:
        async for _ in runs.subscribe_to_run(run_id):
            break
        with pytest.raises(ZeroDivisionError):
            async for _ in runs.subscribe_to_run(run_id):
                raise ZeroDivisionError
        async with runs.subscribe_to_run(run_id) as subscription:
            await anext(aiter(subscription))

    asyncio.run(leave())
    everybody_left()


@pytest.mark.parametrize("signal", [None, threading.Event, asyncio.Event])
def test_cancelling_the_task_of_a_reader_releases_everything(signal):
    subscription = runs.subscribe_to_run(later(), signal=signal and signal())

    async def cancel() -> None:
        began = asyncio.Event()

        async def read() -> None:
            async for _ in subscription:
                began.set()

        task = asyncio.create_task(read())
        await began.wait()
        await asyncio.sleep(0.01)  # into its wait
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(cancel())
    everybody_left()


def test_cancelling_the_task_of_a_reader_that_is_about_to_join_releases_everything():
    run_id = later()

    async def read() -> None:
        async for _ in runs.subscribe_to_run(run_id):
            pass

    async def cancel() -> None:
        for turns in range(20):
            task = asyncio.create_task(read())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(cancel())
    everybody_left()


def test_close_from_another_task_ends_an_async_loop():
    run_id = later()

    async def read() -> list[int]:
        seen = []
        subscription = runs.subscribe_to_run(run_id)
        async for run in subscription:
            seen.append(run.version)
            asyncio.get_running_loop().call_later(0.05, subscription.close)
        return seen

    assert asyncio.run(read()) == [1]


def test_the_end_of_a_with_block_ends_loops_elsewhere(follow_by):
    with runs.subscribe_to_run(later()) as subscription:
        reader = follow_by(subscription).began()
    assert len(reader.ended()) == 1


# -- signals ----------------------------------------------------------------------------------------------------------


def set_in_its_loop(signal: asyncio.Event | threading.Event, reader: Reader) -> None:
    """As users of an asyncio.Event must."""
    if isinstance(signal, asyncio.Event) and reader.loop is not None:
        reader.loop.call_soon_threadsafe(signal.set)
    else:
        signal.set()


@pytest.mark.parametrize("make_signal", [asyncio.Event, threading.Event])
def test_a_signal_ends_a_loop_that_waits(follow_by, make_signal):
    signal = make_signal()
    reader = follow_by(runs.subscribe_to_run(later(), signal=signal)).began()
    set_in_its_loop(signal, reader)
    assert len(reader.ended()) == 1
    everybody_left()


@pytest.mark.parametrize("make_signal", [asyncio.Event, threading.Event])
def test_a_signal_that_was_set_before_ends_the_loop_at_once(follow_by, make_signal):
    signal = make_signal()
    signal.set()
    assert len(follow_by(runs.subscribe_to_run(later(), signal=signal)).ended()) <= 1


@pytest.mark.parametrize("make_signal", [asyncio.Event, threading.Event])
def test_a_loop_with_a_signal_sees_each_change(follow_by, make_signal):
    run_id = later()
    reader = follow_by(runs.subscribe_to_run(run_id, signal=make_signal())).began()
    for _ in range(5):
        reader.saw(run_id, touch(run_id))
    runs.cancel(run_id)
    assert reader.ended()[-1].is_cancelled


def test_a_signal_of_another_event_loop_is_an_error_instead_of_a_busy_wait():
    signal = asyncio.Event()

    async def bind() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(signal.wait(), 0.01)

    asyncio.run(bind())
    reader = Reader(runs.subscribe_to_run(later(), signal=signal), "async for")
    try:
        with pytest.raises(RuntimeError, match="different event loop"):
            reader.ended()
    finally:
        reader.stop()


# -- the two kinds of loops -------------------------------------------------------------------------------------------


def test_a_plain_for_is_refused_where_an_event_loop_runs():
    subscription = runs.subscribe_to_run(t.echo.trigger(1))

    async def read() -> None:
        with pytest.raises(SynchronousOnlyOperation, match="async for"):
            for _ in subscription:
                pass
        with pytest.raises(SynchronousOnlyOperation):
            list(subscription)

    asyncio.run(read())
    assert hub.listener_count == 0


def test_a_plain_for_works_where_sync_code_was_called_from_an_event_loop():
    run_id = t.echo.trigger(1).id

    def read() -> list[int]:
        try:
            return [run.version for run in runs.subscribe_to_run(run_id)]
        finally:
            connections.close_all()

    async def outer() -> list[int]:
        return await asyncio.to_thread(read)

    assert asyncio.run(outer()) == [Run.objects.get().version]


# -- no lost wake-up --------------------------------------------------------------------------------------------------


RACE_POINTS = {
    "before it joins": ("join", "before"),
    "between joining and reading": ("first", "before"),
    "between reading and waiting": ("first", "after"),
    "between the bell and taking": ("take", "before"),
    "between taking and waiting": ("take", "after"),
}


@pytest.mark.parametrize("point", RACE_POINTS)
def test_a_change_at_any_moment_is_seen_without_a_backstop(monkeypatch, follow_by, point):
    what, when = RACE_POINTS[point]
    run_id = later()
    raced: list[int] = []

    def race() -> None:
        """Change the run, in another thread, and give its bell the time to arrive."""
        if not raced:
            thread = threading.Thread(target=change)
            thread.start()
            thread.join()
            time.sleep(0.05)

    def change() -> None:
        raced.append(touch(run_id))
        connections.close_all()

    def raced_around(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            if when == "before":
                race()
            result = original(*args)
            if when == "after":
                race()
            return result

        return call

    subscription = runs.subscribe_to_run(run_id)
    if what == "join":
        monkeypatch.setattr(hub, "join", raced_around(hub.join))
    elif what == "first":
        monkeypatch.setattr(subscription._feed, "first", raced_around(subscription._feed.first))
    else:
        monkeypatch.setattr(follow.Follower, "take", raced_around(follow.Follower.take))
    reader = follow_by(subscription).began()
    if what == "take":
        touch(run_id)  # for the bell after which it takes
        eventually(lambda: raced)
    reader.saw(run_id, raced[0])
    runs.cancel(run_id)
    reader.ended()


def test_a_run_that_becomes_final_between_joining_and_reading_ends_the_loop(monkeypatch, follow_by):
    run_id = later()
    subscription = runs.subscribe_to_run(run_id)
    read = subscription._feed.first
    monkeypatch.setattr(bell, "_ring", lambda rings: None)

    def end_and_read() -> list[RealtimeRun]:
        runs.cancel(run_id)
        return read()

    monkeypatch.setattr(subscription._feed, "first", end_and_read)
    assert [run.status for run in follow_by(subscription).ended()] == [RunStatus.CANCELED]


# -- slow readers -----------------------------------------------------------------------------------------------------


def test_who_follows_a_run_that_is_removed_is_told(follow_by, live):
    live(BACKSTOP_SECONDS=0.1)
    reader = follow_by(runs.subscribe_to_run(t.echo.trigger(1), stop_on_completion=False)).began()
    Run.objects.all().delete()
    with pytest.raises(RunNotFound):
        reader.ended()


def test_a_slow_reader_skips_versions_and_gets_the_newest(follow_by):
    run_id = later()
    reader = follow_by(runs.subscribe_to_run(run_id), halted=True).began()
    newest = [touch(run_id) for _ in range(20)][-1]
    mailbox = eventually(lambda: [one for one in hub._topics[reader.subscription._feed.topic] if one._waiting])[0]
    eventually(lambda: mailbox.knows(run_id, newest))
    reader.may_go_on.set()
    reader.saw(run_id, newest)
    assert reader.versions(run_id) == [1, newest]


def test_a_reader_that_halted_reads_what_its_mailbox_could_not_hold(monkeypatch, follow_by):
    """As when thousands of runs change while a reader is busy; here the mailbox holds ten."""
    monkeypatch.setattr(listeners, "_MOST_WAITING", 10)
    ids = [later(tags=["a", "b"]) for _ in range(30)]
    unrelated = later(tags="a")
    halted = follow_by(runs.subscribe_to_runs_with_tag(["a", "b"]))
    eventually(lambda: len(halted.items) == 30)
    halted.may_go_on.clear()
    brisk = follow_by(runs.subscribe_to_runs_with_tag("a")).began()
    halted.saw(ids[0], touch(ids[0]))
    touch(unrelated)
    newest = {run_id: touch(run_id) for run_id in ids[1:]}
    for run_id, version in newest.items():
        brisk.saw(run_id, version)  # the halted one slows down nobody else
    halted.may_go_on.set()
    for run_id, version in newest.items():
        halted.saw(run_id, version)
    assert unrelated not in halted.newest


def test_a_halted_reader_of_a_batch_sees_its_end(monkeypatch, follow_by):
    monkeypatch.setattr(listeners, "_MOST_WAITING", 10)
    batch_id, ids = later_in_batch(30)
    reader = follow_by(runs.subscribe_to_batch(batch_id, stop_on_completion=True), halted=True).began()
    for run_id in ids:
        runs.cancel(run_id)
    reader.may_go_on.set()
    assert {run.id for run in reader.ended() if run.is_cancelled} == set(ids)
