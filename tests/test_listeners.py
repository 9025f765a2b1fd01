import random
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest

from realtime_runs.live import listeners
from realtime_runs.live.feeds import RunFeed, TagFeed
from realtime_runs.live.follower import Follower
from realtime_runs.live.listeners import Listener
from realtime_runs.live.snapshot import RealtimeRun, snapshot
from realtime_runs.live.topics import run_topic
from realtime_runs.models import Run
from realtime_runs.statuses import RunStatus

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def state(run_id: str = "run_1", version: int = 1, *, tags: tuple[str, ...] = (), second: float = 0) -> RealtimeRun:
    """A snapshot that no table holds; `second`: when it changed, counted from noon."""
    changed = NOON + timedelta(seconds=second)
    return snapshot(
        Run(
            id=run_id,
            version=version,
            status=RunStatus.QUEUED,
            tag_names=list(tags),
            created_at=NOON,
            updated_at=changed,
            run_at=NOON,
            rank=NOON,
        )
    )


@pytest.fixture
def mailbox() -> Listener:
    return Listener(run_topic("run_1"), lambda: None)


def test_a_mailbox_keeps_the_newest_version_of_each_run(mailbox):
    mailbox.offer([state(version=1), state("run_2", 7)])
    mailbox.offer([state(version=2)])
    runs, since = mailbox.take()
    assert {run.id: run.version for run in runs} == {"run_1": 2, "run_2": 7}
    assert since is None


def test_an_older_version_that_comes_late_replaces_nothing(mailbox):
    mailbox.offer([state(version=5)])
    mailbox.offer([state(version=4)])
    assert [run.version for run in mailbox.take()[0]] == [5]


def test_a_mailbox_is_empty_after_it_was_taken(mailbox):
    mailbox.offer([state()])
    mailbox.take()
    assert mailbox.take() == ([], None)


def test_a_reader_is_woken_once_until_it_takes(mailbox):
    assert [mailbox.offer([state(version=version)]) for version in (1, 2, 3)] == [True, False, False]
    mailbox.take()
    assert mailbox.offer([state(version=4)])


def test_an_offer_of_nothing_wakes_nobody(mailbox):
    assert not mailbox.offer([])


def test_what_a_reader_does_not_want_neither_wakes_it_nor_waits():
    follower = Follower(TagFeed(["a", "b"], timedelta(hours=1), 10), lambda: None)
    assert not follower.offer([state(tags=("a",)), state("run_2", tags=("b", "c"))])
    assert follower.offer([state("run_3", tags=("a", "b", "c"))])
    assert [run.id for run in follower.take()[0]] == ["run_3"]


def test_a_mailbox_knows_the_versions_that_wait_in_it(mailbox):
    assert not mailbox.knows("run_1", 1)
    mailbox.offer([state(version=3)])
    assert [mailbox.knows("run_1", version) for version in (2, 3, 4)] == [True, True, False]
    assert not mailbox.knows("run_2", 1)


def test_a_reader_knows_the_versions_that_it_was_given():
    follower = Follower(RunFeed("run_1"), lambda: None)
    follower.accept([state(version=3)])
    assert [follower.knows("run_1", version) for version in (3, 4)] == [True, False]


def test_a_reader_accepts_only_versions_that_rise():
    follower = Follower(RunFeed("run_1"), lambda: None)
    given = [[state(version=version)] for version in (2, 1, 2, 5, 3, 6)]
    assert [run.version for runs in given for run in follower.accept(runs)] == [2, 5, 6]


def test_a_full_mailbox_is_dropped_and_says_from_when_to_read(monkeypatch, mailbox):
    monkeypatch.setattr(listeners, "_MOST_WAITING", 3)
    for number in range(4):
        mailbox.offer([state(f"run_{number}", second=10 - number)])
    assert mailbox.take() == ([], NOON + timedelta(seconds=7))
    assert mailbox.take() == ([], None)


def test_a_mailbox_that_overflows_again_still_says_the_earliest_time(monkeypatch, mailbox):
    monkeypatch.setattr(listeners, "_MOST_WAITING", 2)
    mailbox.offer([state(f"run_{number}", second=5) for number in range(3)])
    assert not mailbox.offer([state(f"run_{number}", second=9) for number in range(3)]), "it was woken before"
    assert mailbox.take()[1] == NOON + timedelta(seconds=5)


def test_a_reader_that_never_comes_costs_bounded_memory(monkeypatch, mailbox):
    monkeypatch.setattr(listeners, "_MOST_WAITING", 100)
    kept = []
    for number in range(1_000):
        mailbox.offer([state(f"run_{number}")])
        kept.append(len(mailbox._waiting))
    assert max(kept) == 100


@pytest.fixture
def _threads_switch_often():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("_threads_switch_often")
@pytest.mark.parametrize("seed", range(5))
def test_a_reader_that_takes_while_others_offer_misses_no_newest_version(seed):
    """It sleeps until it is woken, so a wake-up that gets lost between offer and take hangs it."""
    rung = threading.Event()
    mailbox = Listener(run_topic("any"), rung.set)
    runs, versions = 5, 400

    def offer(run_id: str) -> None:
        for version in range(1, versions + 1):
            if mailbox.offer([state(run_id, version)]):
                mailbox.wake()

    writers = [threading.Thread(target=offer, args=(f"run_{n}",), daemon=True) for n in range(runs)]
    random.Random(seed).shuffle(writers)
    for writer in writers:
        writer.start()
    newest: dict[str, int] = {}
    while len(newest) < runs or min(newest.values()) < versions:
        assert rung.wait(10), f"asleep with {newest}"
        rung.clear()
        for run in mailbox.take()[0]:
            assert newest.get(run.id, 0) < run.version
            newest[run.id] = run.version
    for writer in writers:
        writer.join()
