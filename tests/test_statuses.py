import re
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from realtime_runs.engine.definition import hook_after
from realtime_runs.models import Run
from realtime_runs.statuses import ENTERED_FROM, FINAL, FREES_IDEMPOTENCY_KEY, LEASED, UNFINISHED, RunStatus

PAGE = (Path(__file__).parent.parent / "docs" / "lifecycle.md").read_text(encoding="utf-8")
BORN = "[*]"
MOVES = {(before, after) for after, allowed in ENTERED_FROM.items() for before in allowed}


def drawn_arrows():
    diagram = re.search(r"```mermaid\nstateDiagram-v2\n(.*?)```", PAGE, re.DOTALL)[1]
    arrows = [re.fullmatch(r"\s*(\S+) --> (\w+)(: .+)?", line) for line in diagram.splitlines() if line.strip()]
    assert all(arrows), "a line of the diagram is no arrow"
    return [(arrow[1], arrow[2]) for arrow in arrows]


def described_rows():
    """The cells of each row of the page's table; the first one is the status."""
    rows = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| `")]
    return {cells[0].strip("`"): cells[1:] for cells in rows}


def test_every_drawn_arrow_is_in_the_table_of_moves():
    assert {arrow for arrow in drawn_arrows() if arrow[0] != BORN} - MOVES == set()


def test_every_move_is_drawn():
    assert MOVES - set(drawn_arrows()) == set()


def test_no_arrow_is_drawn_twice():
    assert len(drawn_arrows()) == len(set(drawn_arrows()))


def test_runs_are_born_queued_or_delayed():
    assert {after for before, after in drawn_arrows() if before == BORN} == {RunStatus.QUEUED, RunStatus.DELAYED}


def test_every_status_is_described_for_operators():
    rows = described_rows()
    assert list(rows) == RunStatus.values
    assert all(len(cells) == 3 and all(cells) for cells in rows.values())


def test_the_final_statuses_are_the_last_of_the_described_ones():
    assert set(list(described_rows())[-7:]) == FINAL


def test_the_keys_that_the_page_says_are_given_back_are_given_back():
    sentence = re.search(r"given back when its run ends as (.*?);\n(.*?) keep it", PAGE, re.DOTALL)
    assert set(re.findall(r"`(\w+)`", sentence[1])) == FREES_IDEMPOTENCY_KEY
    assert set(re.findall(r"`(\w+)`", sentence[2])) == FINAL - FREES_IDEMPOTENCY_KEY


def test_every_status_has_a_row_in_the_table_of_moves():
    assert set(ENTERED_FROM) == set(RunStatus)


def test_nothing_leaves_a_final_status():
    assert {before for before, _ in MOVES} == UNFINISHED


def test_every_unfinished_run_can_be_canceled():
    assert ENTERED_FROM[RunStatus.CANCELED] == UNFINISHED


def test_final_and_unfinished_share_nothing_and_leave_nothing_out():
    assert set(RunStatus) == FINAL | UNFINISHED
    assert FINAL.isdisjoint(UNFINISHED)
    assert LEASED < UNFINISHED


def test_statuses_are_the_api_names_of_the_wire():
    # wire-protocol 1.6, without PENDING_VERSION and DEQUEUED, which nothing here enters.
    assert set(RunStatus.values) == {
        *("DELAYED", "QUEUED", "EXECUTING", "WAITING", "COMPLETED", "CANCELED", "FAILED", "CRASHED"),
        *("SYSTEM_FAILURE", "EXPIRED", "TIMED_OUT"),
    }


def test_every_end_has_its_hook():
    hooks = {status: hook_after(status) for status in FINAL}
    assert hooks.pop(RunStatus.COMPLETED) == "on_success"
    assert hooks.pop(RunStatus.CANCELED) == "on_cancel"
    assert set(hooks.values()) == {"on_failure"}


def test_a_run_that_goes_on_has_no_hook():
    with pytest.raises(ValueError, match="EXECUTING is not final"):
        hook_after(RunStatus.EXECUTING)


def implied_by(status):
    """What the constraints want of a row in this status."""
    now = timezone.now()
    return {
        "finished_at": now if status in FINAL else None,
        "lease_token": "token" if status in LEASED else "",
        "lease_until": now + timedelta(minutes=1) if status in LEASED else None,
        "delayed_until": now if status == RunStatus.DELAYED else None,
    }


@pytest.mark.django_db
@pytest.mark.parametrize("before", RunStatus)
def test_a_run_moves_where_the_table_allows_it_and_nowhere_else(before):
    now = timezone.now()
    times = dict.fromkeys(("created_at", "updated_at", "run_at", "rank"), now)
    for after in RunStatus:
        run = Run.objects.create(task="t-echo", status=before, **times, **implied_by(before))
        changes = Run.objects.filter(pk=run.pk).move(after, **implied_by(after))
        run.refresh_from_db()
        if (before, after) in MOVES:
            assert (run.status, run.version, [change.version for change in changes]) == (after, 2, [2])
        else:
            assert (run.status, run.version, changes) == (before, 1, [])
