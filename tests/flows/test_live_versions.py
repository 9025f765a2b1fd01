"""What readers end up with when many writers race and bells go astray."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from django.db import connections, transaction

from realtime_runs import runs
from realtime_runs.live import bell
from realtime_runs.models import Run
from tests.conftest import eventually
from tests.following import Reader, everybody_left, later, later_in_batch, touch

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def follow() -> Iterator[Callable[..., Reader]]:
    readers: list[Reader] = []

    def start(subscription: Any, kind: str) -> Reader:
        readers.append(Reader(subscription, kind))
        return readers[-1]

    yield start
    for reader in readers:
        reader.stop()
    everybody_left()


class BadBells:
    """Loses a third of the bells, doubles a third, and delays a third, so that they overtake each other."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
        self._random = random.Random(seed)
        self._receivers = list(bell._in_process)
        self._timers: list[threading.Timer] = []
        monkeypatch.setattr(bell, "_in_process", [self._ring])

    def _ring(self, bells: bell.Bells) -> None:
        if self._random.random() < 1 / 3:
            return
        for _ in range(2 if self._random.random() < 1 / 3 else 1):
            if self._random.random() < 1 / 3:
                timer = threading.Timer(self._random.uniform(0, 0.15), self._deliver, [bells])
                self._timers.append(timer)
                timer.start()
            else:
                self._deliver(bells)

    def _deliver(self, bells: bell.Bells) -> None:
        for receive in self._receivers:
            receive(bells)

    def wait(self) -> None:
        for timer in self._timers:
            timer.join()


def in_writers(count: int, write: Callable[[random.Random], None], seed: int) -> None:
    """Let `count` threads write, each with dice of its own, and wait for them."""
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            write(random.Random(seed * 1000 + number))
        except BaseException as error:
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_versions_only_rise_and_the_final_one_is_seen_whatever_happens_to_the_bells(live, follow, monkeypatch, seed):
    live(BACKSTOP_SECONDS=0.1)
    bells = BadBells(monkeypatch, seed)
    batch_id, ids = later_in_batch(6)
    kinds = ["for", "async for"]
    each = [follow(runs.subscribe_to_run(run_id), kinds[place % 2]) for place, run_id in enumerate(ids)]
    whole_batch = [follow(runs.subscribe_to_batch(batch_id, stop_on_completion=True), kind) for kind in kinds]
    by_tag = [follow(runs.subscribe_to_runs_with_tag(["a", "b"]), kind) for kind in kinds]
    for run_id in ids:
        runs.add_tags(run_id, ["a", "b", "c"])

    def write(dice: random.Random) -> None:
        for _ in range(25):
            touch(dice.choice(ids))
            time.sleep(dice.uniform(0, 0.01))

    in_writers(4, write, seed)
    for run_id in ids:
        runs.cancel(run_id)
    final = dict(Run.objects.values_list("pk", "version"))
    for run_id, reader in zip(ids, each, strict=True):
        reader.ended()
        assert reader.newest == {run_id: final[run_id]}
    for reader in whole_batch:
        reader.ended()
        assert reader.newest == final
    for reader in by_tag:
        eventually(lambda reader=reader: reader.newest == final, message="A tag feed has not seen all final runs")
    bells.wait()
    for reader in [*each, *whole_batch, *by_tag]:
        for run_id in ids:
            versions = reader.versions(run_id)
            assert all(old < new for old, new in pairwise(versions)), versions
        reader.stop()


@pytest.mark.parametrize("seed", [1, 2])
def test_a_tag_feed_without_bells_loses_nothing_though_transactions_commit_in_another_order(
    live, follow, monkeypatch, seed
):
    """What a transaction changes bears the time of the statement, but appears at its commit, which may come later."""
    live(BACKSTOP_SECONDS=0.02)
    monkeypatch.setattr(bell, "_ring", lambda rings: None)
    ids = [later(tags=["a"])]
    readers = [follow(runs.subscribe_to_runs_with_tag("a"), kind).began() for kind in ("for", "async for")]

    def write(dice: random.Random) -> None:
        for _ in range(10):
            with transaction.atomic():
                run_id = dice.choice(ids)
                if dice.random() < 0.6:
                    run_id = later(tags=["a", "b"])
                else:
                    touch(run_id)
                time.sleep(dice.choice([0, 0.01, 0.1]))
            ids.append(run_id)

    in_writers(8, write, seed)
    final = dict(Run.objects.values_list("pk", "version"))
    for reader in readers:
        eventually(lambda reader=reader: reader.newest == final, message="The last version of some run was lost")
        reader.stop()
