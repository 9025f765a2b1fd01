"""Hooks run at least once, whatever ended the run, and what happens inside of them is nobody else's business."""

from typing import Any

import pytest
from django.db import transaction

from realtime_runs import runs
from realtime_runs.engine import lifecycle
from realtime_runs.models import FromNow, Run
from tests.conftest import eventually
from tests.faults.conftest import Fleet, Work
from tests.tasks import f_bad_hook, f_hooked, f_note, f_slow_hook

pytestmark = pytest.mark.django_db(transaction=True)


def trigger_that_ends(how: str, work: Work) -> str:
    if how == "CRASHED":
        with transaction.atomic():  # this process takes it, and is never heard of again
            handle = f_hooked.trigger(work(end="well"))
            lifecycle.claim([f_hooked.id], 1, run_ids=[handle.id])
            Run.objects.filter(pk=handle.id).update(lease_until=FromNow(-1))
    elif how == "EXPIRED":
        with transaction.atomic():
            handle = f_hooked.trigger(work(end="well"), ttl="1s")
            Run.objects.filter(pk=handle.id).update(expires_at=FromNow(-1))
    elif how == "CANCELED":
        handle = f_hooked.trigger(work(end="well"), delay="1h")
        runs.cancel(handle)
    else:
        handle = f_hooked.trigger(work(end={"COMPLETED": "well", "FAILED": "fail", "TIMED_OUT": "last"}[how]))
    return handle.id


@pytest.mark.parametrize(
    ("status", "hook"),
    [
        ("COMPLETED", "on_success"),
        ("FAILED", "on_failure"),
        ("CRASHED", "on_failure"),
        ("EXPIRED", "on_failure"),
        ("TIMED_OUT", "on_failure"),
        ("CANCELED", "on_cancel"),
    ],
)
def test_every_end_has_its_hook(status: str, hook: str, fleet: Fleet, work: Work) -> None:
    fleet(1)
    run_id = trigger_that_ends(status, work)
    work.wait_for(f"{hook} {status} {run_id}")
    eventually(lambda: not Run.objects.filter(hook_at__isnull=False).exists())
    assert len(work.lines()) == 1


@pytest.mark.parametrize("error", ["ValueError", "SystemExit", "KeyboardInterrupt", "CancelledError"])
@pytest.mark.parametrize("when", ["on_start", "on_success"])
def test_a_hook_that_raises_hurts_nobody(when: str, error: str, fleet: Fleet, work: Work, final: Any) -> None:
    pids = {process.pid for process in fleet(1)}
    bad = f_bad_hook.trigger(work(when=when, error=error))
    eventually(lambda: any(line.startswith("raises") for line in work.lines()))
    (run,) = final(bad)
    assert (run.status, run.attempt) == ("COMPLETED", 1)
    good = f_hooked.trigger(work(end="well"))
    work.wait_for(f"on_success COMPLETED {good.id}", timeout=10)
    (run,) = final(f_note.trigger(work()))
    assert int(run.output) in pids


def test_a_hook_whose_worker_is_killed_is_left_to_another(fleet: Fleet, work: Work) -> None:
    fleet(2)
    handle = f_slow_hook.trigger(work())
    eventually(lambda: any(line.startswith("hook began") for line in work.lines()))
    pid = int(work.lines()[0].rpartition(" ")[2])
    next(process for process in fleet.processes if process.pid == pid).kill9()
    waiting = Run.objects.filter(pk=handle.id, hook_at__gt=FromNow())
    assert waiting.exists()  # nobody else runs it for some minutes
    waiting.update(hook_at=FromNow())  # they are over
    work.open(1)
    work.wait_for("hook ended")
    eventually(lambda: Run.objects.get(pk=handle.id).hook_at is None)
    assert len(work.lines()) == 3
