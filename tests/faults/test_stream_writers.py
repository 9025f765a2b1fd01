"""Writers of a stream against whatever ends it."""

import itertools
import threading
from typing import Any

import pytest

from realtime_runs import runs, streams
from realtime_runs.engine import lifecycle
from realtime_runs.engine.context import Lease
from realtime_runs.engine.writer import process_writer
from realtime_runs.engine.writing import Target
from realtime_runs.exceptions import LeaseLost, StreamClosed
from realtime_runs.models import Stream, StreamChunk
from realtime_runs.packets import Packet
from tests import tasks as t

pytestmark = pytest.mark.django_db(transaction=True)

log = streams.define("log", str)

ROUNDS = 100
WAYS = {"close": "closed", "cancel": "canceled", "complete": "completed"}


def test_what_is_appended_while_a_stream_ends_is_stored_before_the_end_or_refused(in_threads: Any) -> None:
    """By its run's attempt and from outside: nothing that was accepted is lost, and nothing comes behind the end."""
    ids = t.echo.batch_trigger(range(ROUNDS)).run_ids
    leases = {row.id: Lease(row.id, row.attempt, row.lease_token) for row in lifecycle.claim([t.echo.id], ROUNDS)}
    ways = dict(zip(ids, itertools.cycle(WAYS), strict=False))
    accepted: dict[str, list[int]] = {run_id: [] for run_id in ids}
    begin = threading.Barrier(3)

    def end(run_id: str) -> None:
        threading.Event().wait(ids.index(run_id) % 5 / 1000)
        if ways[run_id] == "close":
            log.close(target=run_id)
        elif ways[run_id] == "cancel":
            runs.cancel(run_id)
        else:
            process_writer().write(lambda: lifecycle.complete(leases[run_id], Packet("1")))

    def append(run_id: str, lease: Lease | None) -> None:
        to = Target("log", run_id)
        for _ in range(1000):
            one = to.append([b'"x"'])
            one.lease = lease
            try:
                accepted[run_id] += to.write(one)
            except (StreamClosed, LeaseLost):
                return
        raise AssertionError(f"{ways[run_id]}: it goes on behind the end")

    def race(turn: Any) -> None:
        place = next(turn)
        for run_id in ids:
            begin.wait(20)
            end(run_id) if place == 0 else append(run_id, leases[run_id] if place == 1 else None)

    assert in_threads(3, race, itertools.count()) == [None] * 3
    for run_id in ids:
        reader = log.read(run_id).records()
        assert [record.index for record in reader] == sorted(accepted[run_id]) == list(range(len(accepted[run_id])))
        assert reader.end_reason == WAYS[ways[run_id]]
    written = {run_id: len(indexes) for run_id, indexes in accepted.items() if indexes}
    assert {row.run_id: row.next_index for row in Stream.objects.exclude(next_index=0)} == written
    assert StreamChunk.objects.count() == sum(written.values()) > ROUNDS
