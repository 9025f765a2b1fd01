import re

import pytest
import time_machine

from realtime_runs.ids import ID_LENGTH, new_batch_id, new_lease_token, new_run_id
from realtime_runs.models import Batch, Run


@pytest.mark.parametrize(("new", "prefix"), [(new_run_id, "run_"), (new_batch_id, "batch_")])
def test_ids_have_a_prefix_and_fit_urls_and_columns(new, prefix):
    assert re.fullmatch(prefix + "[0-9a-z]{28}", new())
    assert len(new()) <= ID_LENGTH


def test_ids_fit_the_columns_of_the_rows():
    assert Run._meta.pk.max_length == Batch._meta.pk.max_length == ID_LENGTH
    assert len(new_lease_token()) <= Run._meta.get_field("lease_token").max_length


MOMENTS = [
    "1970-01-01T00:00:00.001Z",
    "2026-01-01T00:00:00Z",
    "2026-01-01T00:00:00.000002Z",
    "2026-01-01T00:00:00.000999Z",
    "2026-01-01T00:00:00.001Z",
    "5100-01-01T00:00Z",
]


def test_later_ids_sort_after_earlier_ones_for_three_millennia():
    ids = []
    for moment in MOMENTS:
        with time_machine.travel(moment, tick=False):
            ids.append(new_run_id())
    assert ids == sorted(ids)
    assert {len(run_id) for run_id in ids} == {32}


def test_ids_of_one_moment_differ_and_cannot_be_guessed():
    with time_machine.travel("2026-01-01T00:00Z", tick=False):
        ids = [new_run_id() for _ in range(20_000)]
    assert len(set(ids)) == len(ids)
    assert len({run_id[:15] for run_id in ids}) == 1
    # Every place of the random part takes every value; the first one holds the rest of 87 bits.
    assert all(len({run_id[place] for run_id in ids}) == 36 for place in range(16, 32))


def test_lease_tokens_differ():
    assert len({new_lease_token() for _ in range(1000)}) == 1000
