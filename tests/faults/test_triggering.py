"""Promise 1: what is rolled back never was, and one idempotency key makes one run, whoever comes at the same time."""

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from django.db import transaction

from realtime_runs import batch
from realtime_runs.engine import lifecycle
from realtime_runs.engine.context import Lease
from realtime_runs.live import bell
from realtime_runs.live.snapshot import RunError
from realtime_runs.models import Batch, FromNow, IdempotencyClaim, Run, RunEvent, RunTag, Tag
from tests.faults.conftest import Work
from tests.tasks import f_note

pytestmark = pytest.mark.django_db(transaction=True)

# Both come before the trigger's own callbacks: the process ends between its commit and all that follows a commit.
DIES_AFTER_COMMIT = """
import json, os, sys
import django
django.setup()
from django.db import transaction
from tests.tasks import f_note
with transaction.atomic():
    transaction.on_commit(lambda: os._exit(9))
    print(f_note.trigger(json.loads(sys.argv[1])).id, flush=True)
"""


@pytest.fixture
def bells(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """All that was rung in this process, for readers as for workers."""
    heard: list[Any] = []
    monkeypatch.setattr(bell, "_in_process", [heard.append])
    return heard


def rows() -> dict[str, int]:
    return {model.__name__: model.objects.count() for model in (Run, Batch, Tag, RunTag, RunEvent, IdempotencyClaim)}


def test_a_rolled_back_trigger_leaves_no_row_and_rings_no_bell(work: Work, bells: list[Any]) -> None:
    with transaction.atomic():
        f_note.trigger(work(), tags=["a"], idempotency_key="k")
        f_note.batch_trigger([work(), work()], tags=["b"])
        assert rows() == {"Run": 3, "Batch": 1, "Tag": 2, "RunTag": 3, "RunEvent": 3, "IdempotencyClaim": 1}
        transaction.set_rollback(True)
    assert not any(rows().values())
    assert bells == []
    f_note.trigger(work(), tags=["a"], idempotency_key="k")
    assert bells  # so they would have been heard


def test_what_committed_before_a_crash_and_outside_of_rolled_back_savepoints_is_executed_and_nothing_else(
    work: Work, worker: Callable[..., Any], start_process: Callable[..., Any], server_env: dict[str, str], final: Any
) -> None:
    draw = random.Random(7)
    kept = []
    for _ in range(50):
        keeps_outer, keeps_inner = draw.random() < 0.5, draw.random() < 0.5
        with transaction.atomic():
            outer = f_note.trigger(work())
            with transaction.atomic():
                inner = f_note.trigger(work())
                with transaction.atomic():
                    innermost = f_note.trigger(work())
                if not keeps_inner:
                    transaction.set_rollback(True)
            if not keeps_outer:
                transaction.set_rollback(True)
        if keeps_outer:
            kept += [outer.id, inner.id, innermost.id] if keeps_inner else [outer.id]
    dying = start_process(["-c", DIES_AFTER_COMMIT, json.dumps(work())], env=server_env)
    assert dying.wait() == 9
    kept.append(dying.output().strip())
    assert {run.status for run in Run.objects.all()} == {"QUEUED"}

    worker()  # it finds what nobody told it of
    final(*Run.objects.all())
    assert sorted(work.lines()) == sorted(kept)


def test_100_triggers_at_once_with_one_key_make_one_run(work: Work, in_threads: Callable[..., list[Any]]) -> None:
    handles = in_threads(100, lambda: f_note.trigger(work(), idempotency_key="k", tags=["t"]))
    assert {handle.id for handle in handles} == {Run.objects.get().id}
    assert [handle.is_cached for handle in handles].count(False) == 1
    assert RunEvent.objects.count() == 1


def test_a_key_whose_claimant_rolls_back_goes_to_one_of_those_who_waited(
    work: Work, in_threads: Callable[..., list[Any]]
) -> None:
    def trigger_and_perhaps_roll_back() -> str | None:
        with transaction.atomic():
            handle = f_note.trigger(work(), idempotency_key="k")
            if not handle.is_cached and draw.random() < 0.7:
                transaction.set_rollback(True)
                return None
        return handle.id

    draw = random.Random(7)
    outcomes = in_threads(40, trigger_and_perhaps_roll_back)
    assert set(outcomes) - {None} == {run.id for run in Run.objects.all()}
    assert Run.objects.count() == 1


@pytest.mark.parametrize("why", ["failed", "expired"])
def test_a_key_that_is_free_again_makes_exactly_one_new_run_for_50_callers(
    why: str, work: Work, in_threads: Callable[..., list[Any]]
) -> None:
    old = f_note.trigger(work(), idempotency_key="k")
    if why == "expired":
        IdempotencyClaim.objects.update(expires_at=FromNow(-1))
    else:
        (run,) = lifecycle.claim([f_note.id], 1)
        with transaction.atomic():
            lifecycle.fail(Lease(run.id, run.attempt, run.lease_token), RunError("ValueError", "as told"))
    handles = in_threads(50, lambda: f_note.trigger(work(), idempotency_key="k"))
    new = Run.objects.exclude(pk=old.id).get()
    assert {handle.id for handle in handles} == {new.id}


def test_batches_with_the_same_keys_in_opposite_orders_do_not_deadlock(
    work: Work, in_threads: Callable[..., list[Any]]
) -> None:
    keys = [f"key-{number}" for number in range(20)]

    def trigger(orders: list[list[str]]) -> dict[str, str]:
        order = orders.pop()
        items = [{"task": f_note, "payload": work(), "options": {"idempotency_key": key}} for key in order]
        return dict(zip(order, batch.trigger(items).run_ids, strict=True))

    for _ in range(3):
        IdempotencyClaim.objects.all().delete()
        found = in_threads(8, trigger, [keys, keys[::-1]] * 4)
        assert all(outcome == found[0] for outcome in found), found
        assert len(set(found[0].values())) == len(keys)
