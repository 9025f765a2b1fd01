from datetime import timedelta

import pytest
from django.db.models import QuerySet

from realtime_runs import streams
from realtime_runs.engine import retention
from realtime_runs.engine.retention import prune
from realtime_runs.exceptions import RunNotFound, StreamGap
from realtime_runs.models import Attempt, Batch, FromNow, IdempotencyClaim, Run, RunEvent, RunTag, StreamChunk, Tag
from realtime_runs.testing import execute_queued_runs
from tests.tasks import echo

pytestmark = pytest.mark.django_db

MODELS = (Run, Attempt, RunEvent, RunTag, Tag, IdempotencyClaim, Batch)


def make_old(**which):
    Run.objects.filter(**which).update(finished_at=FromNow(-timedelta(days=31)))
    for model in (Batch, Tag):
        model.objects.update(created_at=FromNow(-timedelta(days=31)))


def test_old_final_runs_go_with_all_that_belongs_to_them():
    echo.batch_trigger([1, 2, 3], tags=["t"])
    echo.trigger(1, idempotency_key="k")
    execute_queued_runs()
    make_old(task="t-echo")
    assert list(prune(timedelta(days=30), batch_size=3)) == [3, 1]
    assert [model.objects.count() for model in MODELS] == [0] * len(MODELS)


def test_streams_go_with_their_runs_a_few_chunks_at_a_time_and_readers_are_told(monkeypatch):
    monkeypatch.setattr(retention, "_CHUNKS_AT_ONCE", 10)
    run_id, other = echo.trigger(1).id, echo.trigger(2, delay=60).id
    for _ in range(25):
        for target in (run_id, other):
            streams.append("log", "x", target=target)
    execute_queued_runs()
    make_old(task="t-echo", status="COMPLETED")
    reader = iter(streams.read(run_id, "log").records())
    read = [next(reader).index for _ in range(20)]
    removed: list[int] = []
    delete = QuerySet.delete

    def watch(queryset):
        result = delete(queryset)
        if queryset.model is StreamChunk:
            removed.append(result[0])
            with pytest.raises(StreamGap) as caught:
                list(streams.read(run_id, "log"))
            assert caught.value.first_index == min(10 * len(removed), 25)
        return result

    monkeypatch.setattr(QuerySet, "delete", watch)
    assert list(prune(timedelta(days=30))) == [1]
    assert (read, removed) == (list(range(20)), [10, 10, 5])
    assert [record.index for record in reader] == list(range(20, 25)), "what a reader has taken it keeps"
    with pytest.raises(RunNotFound):
        list(streams.read(run_id, "log"))
    assert StreamChunk.objects.count() == 25


def test_young_and_unfinished_runs_stay():
    old, young, queued = echo.trigger(1), echo.trigger(2), echo.trigger(3, delay=60, tags=["t"])
    execute_queued_runs()
    make_old(pk=old.id)
    assert list(prune(timedelta(days=30))) == [1]
    assert set(Run.objects.values_list("pk", flat=True)) == {young.id, queued.id}
    assert Tag.objects.filter(name="t").exists()


def test_a_dry_run_only_counts():
    echo.batch_trigger([1, 2])
    execute_queued_runs()
    make_old(task="t-echo")
    assert list(prune(timedelta(days=30), dry_run=True)) == [2]
    assert Run.objects.count() == 2


def test_a_child_outlives_its_parent():
    parent, child = echo.trigger(1), echo.trigger(2)
    Run.objects.filter(pk=child.id).update(parent=parent.id, root=parent.id)
    execute_queued_runs()
    make_old(pk=parent.id)
    assert list(prune(timedelta(days=30))) == [1]
    assert Run.objects.get().parent_id == parent.id
