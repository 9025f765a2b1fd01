"""The hub: what following costs, what the backstop finds without bells, and what is left when readers go."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.layers import BaseChannelLayer
from django.db import OperationalError, connection, connections, transaction
from django.db.backends.signals import connection_created

from realtime_runs import runs
from realtime_runs.conf import DEFAULTS
from realtime_runs.live import bell, layer_groups, listeners, reading
from realtime_runs.live import hub as hub_module
from realtime_runs.live.hub import hub
from realtime_runs.live.listeners import Listener, WorkListener
from realtime_runs.live.loop import live_loop
from realtime_runs.live.topics import WORK, run_topic, tag_topic
from realtime_runs.models import Run
from tests.conftest import HOUR, close_connection_of_event_loops, eventually
from tests.following import Reader, everybody_left, later, later_in_batch, touch

# Emptying only our own tables after each test takes half the time.
pytestmark = pytest.mark.django_db(transaction=True)

KINDS = ["for", "async for"]


@pytest.fixture(autouse=True)
def _backstop_by_hand(live):
    """A change comes by its bell, or when the test lets the backstop look."""


@pytest.fixture
def follow() -> Iterator[Callable[..., Reader]]:
    """`follow(subscription, kind="for")`: a reader that ends with the test."""
    readers: list[Reader] = []

    def start(subscription: Any, kind: str = "for") -> Reader:
        readers.append(Reader(subscription, kind))
        return readers[-1]

    yield start
    for reader in readers:
        reader.stop()


@pytest.fixture
def no_bells(monkeypatch) -> None:
    monkeypatch.setattr(bell, "_ring", lambda rings: None)


def look(*, long: bool = False) -> None:
    """What the backstop does at each tick, now."""
    live_loop.start(hub._look(long=long)).result(10)


class Calls:
    """Watches a function of `reading`: keeps the arguments of its calls; lets one of them wait, or fail, on demand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.arguments: list[tuple[Any, ...]] = []
        self.errors: list[Exception] = []
        self._is_armed = False
        self._waits = threading.Event()
        self._may_go_on = threading.Event()
        self._original = getattr(reading, name)
        monkeypatch.setattr(reading, name, self._call)

    def _call(self, *args: Any, **kwargs: Any) -> Any:
        self.arguments.append(args)
        if self.errors:
            raise self.errors.pop()
        if self._is_armed:
            self._is_armed = False
            self._waits.set()
            assert self._may_go_on.wait(10)
        return self._original(*args, **kwargs)

    def hold_next(self) -> None:
        self._is_armed = True

    def wait_until_held(self) -> None:
        assert self._waits.wait(10)

    def let_go(self) -> None:
        self._may_go_on.set()


@pytest.fixture
def calls_of(monkeypatch) -> Callable[[str], Calls]:
    return partial(Calls, monkeypatch)


# -- what following costs ---------------------------------------------------------------------------------------------


class Crowd:
    """Many `async for` loops on one event loop, in a thread."""

    def __init__(self, subscriptions: list[Any]) -> None:
        self._subscriptions = subscriptions
        self.newest: list[int] = [0] * len(subscriptions)  # the last version that each of them got
        self._thread = threading.Thread(target=lambda: asyncio.run(self._follow_all()), daemon=True)
        self._thread.start()
        eventually(lambda: all(self.newest), timeout=30, message="Not all of them began")

    async def _follow_all(self) -> None:
        await asyncio.gather(*(self._follow(place, one) for place, one in enumerate(self._subscriptions)))

    async def _follow(self, place: int, subscription: Any) -> None:
        async for run in subscription:
            self.newest[place] = run.version

    def stop(self) -> None:
        for subscription in self._subscriptions:
            subscription.close()
        self._thread.join(10)


@pytest.fixture
def crowd() -> Iterator[Callable[[list[Any]], Crowd]]:
    with contextlib.ExitStack() as stack:

        def gather(subscriptions: list[Any]) -> Crowd:
            found = Crowd(subscriptions)
            stack.callback(found.stop)
            return found

        yield gather
    everybody_left()


@pytest.fixture
def opened() -> Iterator[list[Any]]:
    """The database connections that other threads open meanwhile."""
    opened: list[Any] = []
    us = threading.get_ident()

    def remember(connection: Any, **kwargs: Any) -> None:
        if threading.get_ident() != us:
            opened.append(connection)

    connection_created.connect(remember)
    yield opened
    connection_created.disconnect(remember)


def test_500_readers_in_a_process_cost_one_read_and_one_wake_up_a_change(monkeypatch, crowd, calls_of, opened):
    ids = [later() for _ in range(100)]
    everyone = crowd([runs.subscribe_to_run(ids[place % 100]) for place in range(500)])
    assert (hub.listener_count, hub.topic_count) == (500, 100)
    eventually(lambda: not any(one.connection for one in opened), message="A connection is held while all wait")
    reads = calls_of("read_runs")
    woken: list[list[Any]] = []
    wake = hub_module._wake
    monkeypatch.setattr(hub_module, "_wake", lambda listeners: (woken.append(listeners), wake(listeners)))
    for change in range(1, 11):
        version = touch(ids[0])
        eventually(lambda wanted=version: everyone.newest[::100] == [wanted] * 5)
        assert reads.arguments == [([ids[0]],)] * change
        assert [len(listeners) for listeners in woken] == [5] * change
    assert sum(everyone.newest) == 500 + 5 * 10
    eventually(lambda: not any(one.connection for one in opened), message="A connection is held while all wait")


def test_500_readers_of_one_tag_cost_one_read_a_change(crowd, calls_of):
    run_id = later(tags="a")
    everyone = crowd([runs.subscribe_to_runs_with_tag("a") for _ in range(500)])
    assert hub.topic_count == 1
    reads = calls_of("read_runs")
    version = touch(run_id)
    eventually(lambda: everyone.newest == [version] * 500)
    assert len(reads.arguments) == 1


def test_threads_that_follow_with_a_plain_for_hold_no_connection_while_they_wait(follow, opened):
    run_id = later(tags="a")
    readers = [follow(runs.subscribe_to_run(run_id)) for _ in range(10)]
    readers += [follow(runs.subscribe_to_runs_with_tag("a")) for _ in range(10)]
    for reader in readers:
        reader.began()
    eventually(lambda: not any(one.connection for one in opened), message="A connection is held while all wait")


def test_one_look_of_the_backstop_asks_once_for_all_runs(crowd, calls_of, no_bells):
    ids = [later() for _ in range(50)]
    everyone = crowd([runs.subscribe_to_run(run_id) for run_id in ids])
    versions, reads = calls_of("read_versions"), calls_of("read_runs")
    touch(ids[7])
    look()
    eventually(lambda: everyone.newest[7] == 2)
    assert [len(asked) for (asked,) in versions.arguments] == [50]
    assert reads.arguments == [([ids[7]],)]


def test_what_one_statement_changes_is_read_at_once(follow, calls_of):
    batch_id, ids = later_in_batch(50)
    reader = follow(runs.subscribe_to_batch(batch_id))
    eventually(lambda: len(reader.items) == 50)
    reads = calls_of("read_runs")
    bell.announce(Run.objects.filter(batch=batch_id).touch())
    for run_id in ids:
        reader.saw(run_id, 2)
    assert [sorted(asked) for (asked,) in reads.arguments] == [sorted(ids)]


def test_what_changes_while_the_hub_reads_is_read_together_afterwards(follow, calls_of):
    run_id = later()
    reader = follow(runs.subscribe_to_run(run_id)).began()
    reads = calls_of("read_runs")
    reads.hold_next()
    touch(run_id)
    reads.wait_until_held()
    newest = [touch(run_id) for _ in range(30)][-1]
    reads.let_go()
    reader.saw(run_id, newest)
    assert len(reads.arguments) <= 3


def test_a_bell_that_nobody_here_follows_does_not_reach_the_hub(monkeypatch, follow):
    followed, other = later(), later(tags="a")
    reader = follow(runs.subscribe_to_run(followed)).began()
    heard: list[bell.Bells] = []
    hear = hub._hear
    monkeypatch.setattr(hub, "_hear", lambda bells: (heard.append(bells), hear(bells)))
    touch(other)
    reader.saw(followed, touch(followed))
    assert [list(bells) for bells in heard] == [[run_topic(followed)]]


def test_a_worker_is_told_the_ids_and_nothing_is_read_for_it(calls_of):
    reads = calls_of("read_runs")
    told: list[list[str]] = []
    listener = WorkListener(WORK, told.append)
    hub.join(listener).result(10)
    bell.announce_work(["run_1", "run_2"])
    eventually(lambda: told == [["run_1", "run_2"]])
    look()
    assert reads.arguments == []
    hub.leave(listener)
    everybody_left()


def test_a_feed_does_not_read_the_past_again(follow, calls_of, no_bells):
    later(tags="a")
    reader = follow(runs.subscribe_to_runs_with_tag("a")).began()
    changed, reads = calls_of("read_changed"), calls_of("read_runs")
    began = Run.objects.get().created_at
    look()
    reader.saw(later(tags="a"), 0)
    look()
    look()
    assert all((began - since).total_seconds() < 60 for since, *_ in changed.arguments)
    known = len(reads.arguments)
    look()
    look()
    assert len(reads.arguments) == known, "nothing has changed, so nothing is read"


# -- leaving ----------------------------------------------------------------------------------------------------------


def tasks_of_the_live_loop() -> int:
    async def count() -> int:
        return len(asyncio.all_tasks())

    return live_loop.start(count()).result(10)


def test_200_rounds_of_subscribing_and_leaving_leave_nothing_behind(live):
    live(BACKSTOP_SECONDS=0.02, LINGER_SECONDS=0.01)
    run_id = later(tags="a")
    subscribe = [
        partial(runs.subscribe_to_run, run_id),
        partial(runs.subscribe_to_runs_with_tag, "a"),
        partial(runs.subscribe_to_run, run_id, signal=threading.Event()),
        partial(runs.subscribe_to_run, run_id, signal=asyncio.Event()),
    ]

    def sync_rounds(count: int) -> None:
        for number in range(count):
            for _ in subscribe[number % 4]():
                break

    async def async_rounds(count: int) -> None:
        for number in range(count):
            async for _ in subscribe[number % 4]():
                break

    def leftovers() -> tuple[int, int]:
        return threading.active_count(), tasks_of_the_live_loop()

    sync_rounds(4)
    asyncio.run(async_rounds(4))
    everybody_left()
    eventually(lambda: not hub._topics)
    before = leftovers()
    sync_rounds(100)
    asyncio.run(async_rounds(100))
    everybody_left()
    # Threads that read for the loops end when they have been idle for a second.
    eventually(lambda: leftovers() <= before, message=f"More than the {before} threads and tasks of before")
    eventually(lambda: not hub._topics)
    assert not hub._left_at


def test_the_reader_of_an_event_loop_that_was_closed_is_dropped():
    run_id = later()
    loop = asyncio.new_event_loop()
    hub.join(Listener(run_topic(run_id), lambda: None, loop)).result(10)
    loop.close()
    touch(run_id)
    everybody_left()


def test_a_reader_of_a_closed_event_loop_costs_the_others_nothing(follow):
    run_id = later()
    loop = asyncio.new_event_loop()
    hub.join(Listener(run_topic(run_id), lambda: None, loop)).result(10)
    readers = [follow(runs.subscribe_to_run(run_id), kind).began() for kind in KINDS]
    loop.close()
    newest = [touch(run_id) for _ in range(3)][-1]
    for reader in readers:
        reader.saw(run_id, newest)


def test_one_reader_that_leaves_takes_nothing_from_the_other_of_its_topic(follow):
    run_id = later()
    leaver, stayer = (follow(runs.subscribe_to_run(run_id), kind).began() for kind in KINDS)
    leaver.subscription.close()
    leaver.ended()
    stayer.saw(run_id, touch(run_id))
    assert hub.listener_count == 1


# -- the backstop: every bell is lost ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_bells")
@pytest.mark.parametrize("kind", KINDS)
def test_without_any_bell_a_run_is_seen_to_its_end(live, follow, kind):
    live(BACKSTOP_SECONDS=0.05)
    run_id = later()
    reader = follow(runs.subscribe_to_run(run_id), kind).began()
    for _ in range(3):
        reader.saw(run_id, touch(run_id))
    runs.cancel(run_id)
    assert [run.version for run in reader.ended()] == [1, 2, 3, 4, 5]


@pytest.mark.usefixtures("no_bells")
@pytest.mark.parametrize("kind", KINDS)
def test_without_any_bell_a_batch_is_seen_to_its_end(live, follow, kind):
    live(BACKSTOP_SECONDS=0.05)
    batch_id, ids = later_in_batch(10)
    reader = follow(runs.subscribe_to_batch(batch_id, stop_on_completion=True), kind).began()
    reader.saw(ids[3], touch(ids[3]))
    for run_id in ids:
        runs.cancel(run_id)
    assert {run.id for run in reader.ended() if run.is_cancelled} == set(ids)


@pytest.mark.usefixtures("no_bells")
@pytest.mark.parametrize("kind", KINDS)
def test_without_any_bell_a_tag_sees_new_runs_runs_that_get_it_and_changes(live, follow, kind):
    live(BACKSTOP_SECONDS=0.05)
    old, stranger = later(tags=["a", "b"]), later(tags="b")
    reader = follow(runs.subscribe_to_runs_with_tag(["a", "b"]), kind).began()
    reader.saw(old, touch(old))
    reader.saw(later(tags=["a", "b", "c"]), 1)
    reader.saw(stranger, runs.add_tags(stranger, "a").version)
    runs.cancel(stranger)
    reader.saw(stranger, 3)
    assert reader.versions(stranger) == [2, 3], "before, it lacked a tag"


@pytest.mark.usefixtures("no_bells")
def test_a_transaction_that_stays_open_for_long_is_seen_when_it_commits(live, follow, calls_of):
    """What it changes bears the time of its statements, which many looks of the backstop have passed by then."""
    live(BACKSTOP_SECONDS=0.05)
    batch_id, ids = later_in_batch(2)
    everything = [follow(runs.subscribe_to_runs_with_tag("a")), follow(runs.subscribe_to_batch(batch_id)).began()]
    eventually(lambda: hub.listener_count == 2)
    looks = calls_of("read_changed")
    with transaction.atomic():
        new, touched = later(tags="a"), touch(ids[1])
        # SQLite has no way to ask for open transactions; two seconds is what a short look goes back there.
        until = time.monotonic() + 2.5
        eventually(lambda: len(looks.arguments) > 5 and time.monotonic() > until)
    everything[0].saw(new, 1)
    everything[1].saw(ids[1], touched)


@pytest.mark.usefixtures("no_bells")
def test_a_transaction_that_was_open_during_a_look_is_seen_by_the_next_one(follow):
    batch_id, ids = later_in_batch(2)
    by_tag, by_batch = follow(runs.subscribe_to_runs_with_tag("a")), follow(runs.subscribe_to_batch(batch_id)).began()
    by_tag.saw(later(tags="a"), 0)
    look()
    with transaction.atomic():
        new, touched = later(tags="a"), touch(ids[1])
        look()
        time.sleep(0.1)
        look()
    look()
    by_tag.saw(new, 1)
    by_batch.saw(ids[1], touched)


def test_a_long_look_goes_back_further_than_to_the_long_look_before():
    """Otherwise SQLite transactions that were open between the two are never found."""
    slowest = max(DEFAULTS["BACKSTOP_SECONDS"], DEFAULTS["BACKSTOP_WITH_LAYER_SECONDS"])
    assert reading._SQLITE_LONG_OVERLAP.total_seconds() > hub_module._LONG_LOOK_EVERY * slowest


@pytest.mark.usefixtures("no_bells")
def test_a_feed_that_begins_while_the_backstop_looks_misses_nothing(follow, calls_of):
    follow(runs.subscribe_to_runs_with_tag("other"))
    eventually(lambda: hub.listener_count == 1)
    run_id = later(tags="a")
    horizons = calls_of("read_horizon")
    horizons.hold_next()
    looking = live_loop.start(hub._look(long=False))
    horizons.wait_until_held()
    reader = follow(runs.subscribe_to_runs_with_tag("a")).began()
    version = touch(run_id)  # after the reader's first look, and before the time from which the next look reads
    horizons.let_go()
    looking.result(10)
    look()
    reader.saw(run_id, version)


@pytest.mark.usefixtures("no_bells")
@pytest.mark.parametrize("second_tag", ["a", "b"])
def test_two_feeds_that_begin_together_miss_nothing(follow, calls_of, second_tag):
    run_id = later(tags=["a", "b"])
    horizons = calls_of("read_horizon")
    horizons.hold_next()
    first = follow(runs.subscribe_to_runs_with_tag("a"))
    horizons.wait_until_held()
    second = follow(runs.subscribe_to_runs_with_tag(second_tag))
    time.sleep(0.2)  # the second may begin, or may have to wait for the first
    version = touch(run_id)
    horizons.let_go()
    first.began()
    second.began()
    look()
    second.saw(run_id, version)


@pytest.mark.usefixtures("no_bells")
def test_a_feed_that_begins_again_misses_nothing_of_what_came_in_between(follow):
    run_id = later(tags="a")
    reader = follow(runs.subscribe_to_runs_with_tag("a")).began()
    reader.stop()
    everybody_left()
    touch(run_id)
    again = follow(runs.subscribe_to_runs_with_tag("a")).began()
    assert again.newest == {run_id: 2}
    version = touch(run_id)
    look()
    again.saw(run_id, version)


@pytest.mark.postgres
@pytest.mark.usefixtures("no_bells")
def test_a_halted_reader_gets_what_was_committed_after_its_mailbox_overflowed(monkeypatch, follow):
    """It was changed before the runs that overflowed, so reading from their time on does not bring it."""
    monkeypatch.setattr(listeners, "_MOST_WAITING", 5)
    slow = later(tags="a")
    others = [later(tags="a") for _ in range(10)]
    reader = follow(runs.subscribe_to_runs_with_tag("a"))
    eventually(lambda: len(reader.items) == 11)
    reader.may_go_on.clear()
    touch(others[0])
    look()
    reader.saw(others[0], 2)  # and halted there
    changed, may_commit = threading.Event(), threading.Event()

    def change_slowly() -> None:
        with transaction.atomic():
            touch(slow)
            changed.set()
            may_commit.wait(10)
        connections.close_all()

    thread = threading.Thread(target=change_slowly)
    thread.start()
    assert changed.wait(10)
    for run_id in others:
        touch(run_id)
    look()
    (mailbox,) = hub._topics[tag_topic("a")]
    eventually(lambda: mailbox._behind_since)
    may_commit.set()
    thread.join()
    look()
    eventually(lambda: mailbox.knows(slow, 2))
    reader.may_go_on.set()
    reader.saw(others[9], 2).saw(slow, 2)


@pytest.mark.parametrize("name", ["read_runs", "read_versions", "read_changed"])
def test_a_database_that_is_away_for_a_while_delays_readers_and_loses_nothing(
    monkeypatch, live, follow, calls_of, name, caplog
):
    live(BACKSTOP_SECONDS=0.05)
    monkeypatch.setattr(hub_module, "_RETRY_SECONDS", 0.01)
    run_id = later(tags="a")
    by_id = follow(runs.subscribe_to_run(run_id)).began()
    by_tag = follow(runs.subscribe_to_runs_with_tag("a")).began()
    calls_of(name).errors = [OperationalError("the server is away")] * 4
    version = touch(run_id)
    by_id.saw(run_id, version)
    by_tag.saw(run_id, version)
    eventually(lambda: "the server is away" in caplog.text)
    by_tag.saw(run_id, touch(run_id))


@pytest.mark.usefixtures("no_bells")
def test_what_a_look_has_found_is_read_again_when_the_read_failed(monkeypatch, follow, calls_of):
    """The next look would not find it: it knows that version already."""
    monkeypatch.setattr(hub_module, "_RETRY_SECONDS", 0.01)
    run_id = later(tags="a")
    reader = follow(runs.subscribe_to_runs_with_tag("a")).began()
    version = touch(run_id)
    calls_of("read_runs").errors = [OperationalError("the server is away")] * 4
    look()
    reader.saw(run_id, version)


def end_all_connections() -> None:
    """As when PostgreSQL was restarted; only the connection of the test itself stays."""
    close_connection_of_event_loops()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


@pytest.mark.postgres
@pytest.mark.usefixtures("no_bells")
def test_readers_outlive_the_loss_of_all_connections(live, follow):
    live(BACKSTOP_SECONDS=0.05)
    run_id = later(tags="a")
    readers = [follow(runs.subscribe_to_run(run_id)).began(), follow(runs.subscribe_to_runs_with_tag("a")).began()]
    for _ in range(3):
        end_all_connections()
        version = touch(run_id)
        for reader in readers:
            reader.saw(run_id, version)


@pytest.mark.postgres
@pytest.mark.parametrize("kind", KINDS)
def test_a_reader_begins_although_the_connections_that_were_open_are_lost(follow, kind):
    """The threads that read for everybody keep a connection for a second, or for as long as somebody follows."""
    run_id = later(tags="a")
    follow(runs.subscribe_to_runs_with_tag("a"), kind).began().stop()
    everybody_left()
    end_all_connections()
    follow(runs.subscribe_to_runs_with_tag("a"), kind).saw(run_id, 1)


# -- the layer --------------------------------------------------------------------------------------------------------


class OtherProcesses(BaseChannelLayer):
    """A channel layer, and all the processes at its other end."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.is_away = False
        self.refuses_groups = False
        self.groups: set[str] = set()
        self.joins: list[str] = []
        self._messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def _must_be_there(self) -> None:
        if self.is_away:
            raise ConnectionError("the layer is away")

    async def new_channel(self, prefix: str = "specific.") -> str:
        self._must_be_there()
        return f"{prefix}us"

    async def group_add(self, group: str, channel: str) -> None:
        self._must_be_there()
        if self.refuses_groups:
            raise ConnectionError("no groups today")
        self.joins.append(group)
        self.groups.add(group)

    async def group_discard(self, group: str, channel: str) -> None:
        self._must_be_there()
        self.groups.discard(group)

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        self._must_be_there()
        self._messages.put_nowait(message)  # everybody in the group gets it, we too

    async def receive(self, channel: str) -> dict[str, Any]:
        self._must_be_there()
        message = await self._messages.get()
        self._must_be_there()
        return message

    def ring(self, run_id: str) -> None:
        """Another process has changed the run."""
        topic = run_topic(run_id)
        message = {
            "type": bell.MESSAGE_TYPE,
            "from": "them",
            "topic": [topic.kind, topic.name],
            "versions": {run_id: 0},
        }
        if topic.group in self.groups:
            live_loop.call(self._messages.put_nowait, message)


@pytest.fixture
def layer(settings, live) -> Callable[..., OtherProcesses]:
    """`layer(…)`: a new hub under these settings, on a layer. Its backstop does not come while the layer works."""

    def start(**values: Any) -> OtherProcesses:
        settings.CHANNEL_LAYERS = {"default": {"BACKEND": "tests.test_hub.OtherProcesses"}}
        live(**{"BACKSTOP_WITH_LAYER_SECONDS": HOUR, "BACKSTOP_SECONDS": HOUR, **values})
        found = hub_module.carrying_layer()
        assert isinstance(found, OtherProcesses)
        return found

    return start


def touch_elsewhere(run_id: str) -> int:
    """As another process would; its bell has yet to come."""
    return Run.objects.filter(pk=run_id).touch()[0].version


def test_the_bell_of_another_process_brings_its_change(layer, follow):
    others = layer()
    run_id = later()
    reader = follow(runs.subscribe_to_run(run_id)).began()
    version = touch_elsewhere(run_id)
    others.ring(run_id)
    reader.saw(run_id, version)


def test_the_group_of_a_topic_is_joined_once_for_all_its_readers(layer, follow):
    others = layer()
    run_id = later()
    readers = [follow(runs.subscribe_to_run(run_id), kind).began() for kind in KINDS * 3]
    readers[0].stop()
    assert others.joins == [run_topic(run_id).group]


def test_a_topic_stays_joined_for_a_while_after_its_last_reader_left(layer, follow):
    others = layer(LINGER_SECONDS=HOUR)
    run_id = later()
    for _ in range(5):
        follow(runs.subscribe_to_run(run_id)).began().stop()
        everybody_left()
    assert (len(others.joins), hub.topic_count) == (1, 0)
    assert others.groups == {run_topic(run_id).group}


def test_a_topic_that_nobody_came_back_to_is_left(layer, follow):
    others = layer(LINGER_SECONDS=0.01, BACKSTOP_SECONDS=0.05, BACKSTOP_WITH_LAYER_SECONDS=0.05)
    left, kept = later(), later()
    follow(runs.subscribe_to_run(kept)).began()
    follow(runs.subscribe_to_run(left)).began().stop()
    eventually(lambda: others.groups == {run_topic(kept).group})
    assert list(hub._topics) == [run_topic(kept)]


def test_a_reader_that_comes_while_another_still_joins_hears_other_processes_too(monkeypatch, layer, follow):
    others = layer()
    run_id = later()
    joining, may_join = threading.Event(), threading.Event()
    join = others.group_add

    async def join_slowly(group: str, channel: str) -> None:
        joining.set()
        while not may_join.is_set():
            await asyncio.sleep(0.005)
        await join(group, channel)

    monkeypatch.setattr(others, "group_add", join_slowly)
    follow(runs.subscribe_to_run(run_id))
    assert joining.wait(10)
    second = follow(runs.subscribe_to_run(run_id))
    time.sleep(0.2)  # it may begin to read, or may have to wait for the group
    version = touch_elsewhere(run_id)
    others.ring(run_id)
    may_join.set()
    second.saw(run_id, version)


def test_our_own_bells_that_come_back_cost_no_second_read(layer, follow, calls_of):
    layer(BELL_SECONDS=0.01)
    followed = later()
    reader = follow(runs.subscribe_to_run(followed)).began()
    reads = calls_of("read_runs")
    for number in range(1, 6):
        reader.saw(followed, touch(followed))
        time.sleep(0.03)
        assert len(reads.arguments) == number


def test_while_the_layer_is_away_readers_poll_and_later_its_bells_are_heard_again(monkeypatch, layer, follow, calls_of):
    monkeypatch.setattr(layer_groups, "_RETRY_SECONDS", 0.05)
    others = layer(BACKSTOP_SECONDS=0.05)
    others.is_away = True
    run_id = later()
    reader = follow(runs.subscribe_to_run(run_id)).began()
    reader.saw(run_id, touch_elsewhere(run_id))
    others.is_away = False
    eventually(lambda: run_topic(run_id).group in others.groups and hub._groups.works)
    looks = calls_of("read_versions")

    def backstop_sleeps() -> bool:
        before = len(looks.arguments)
        time.sleep(0.2)
        return len(looks.arguments) == before

    eventually(backstop_sleeps)
    version = touch_elsewhere(run_id)
    others.ring(run_id)
    reader.saw(run_id, version)


def test_a_topic_whose_group_cannot_be_joined_is_polled(layer, follow):
    others = layer(BACKSTOP_SECONDS=0.05)
    others.refuses_groups = True
    run_id = later()
    reader = follow(runs.subscribe_to_run(run_id)).began()
    for _ in range(3):
        reader.saw(run_id, touch_elsewhere(run_id))


def test_a_layer_that_goes_away_in_between_costs_the_readers_time_and_no_change(monkeypatch, layer, follow):
    monkeypatch.setattr(layer_groups, "_RETRY_SECONDS", 0.05)
    others = layer(BACKSTOP_SECONDS=0.05, BACKSTOP_WITH_LAYER_SECONDS=0.1)
    run_id = later(tags="a")
    readers = [follow(runs.subscribe_to_run(run_id)).began(), follow(runs.subscribe_to_runs_with_tag("a")).began()]
    for is_away in (True, False, True):
        others.is_away = is_away
        version = touch(run_id)
        for reader in readers:
            reader.saw(run_id, version)


# -- servers that fork ------------------------------------------------------------------------------------------------

FORKED = """
import os
import sys
import threading
import warnings

import django

django.setup()
warnings.simplefilter("ignore")  # about threads and forks, which is what this is about
from django.db import connections
from realtime_runs import runs

run_id = sys.argv[1]
with runs.subscribe_to_run(run_id) as subscription:
    assert next(iter(subscription)).version == 1
connections.close_all()
if os.fork() == 0:
    seen = []
    threading.Timer(0.2, lambda: runs.cancel(run_id)).start()
    for run in runs.subscribe_to_run(run_id):
        seen.append(run.version)
    print(seen, flush=True)
    os._exit(0)
os.wait()
"""


@pytest.mark.sqlite
def test_a_process_that_was_forked_from_one_that_follows_can_follow(start_process, server_env):
    process = start_process(["-c", FORKED, later()], env=server_env)
    assert process.wait() == 0
    assert process.output().strip() == "[1, 2]"


# -- event loops ------------------------------------------------------------------------------------------------------


def test_a_change_made_in_an_event_loop_reaches_a_reader_on_the_same_loop():
    """The bell rings in the thread that commits, here one of asgiref's."""
    run_id = later()

    async def read() -> list[int]:
        seen = []
        async for run in runs.subscribe_to_run(run_id):
            seen.append(run.version)
            if run.version == 1:
                await runs.aadd_tags(run_id, "a")
            elif run.version == 2:
                await runs.acancel(run_id)
        await sync_to_async(connections.close_all)()  # of the thread that made the changes
        return seen

    assert asyncio.run(read()) == [1, 2, 3]
