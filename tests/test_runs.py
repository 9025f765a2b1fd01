from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from realtime_runs import batch, runs, streams
from realtime_runs.exceptions import BatchNotFound, InvalidOption, InvalidTransition, PollTimeout, RunNotFound, TooLarge
from realtime_runs.models import Run, RunTag
from realtime_runs.runs import RealtimeRun
from realtime_runs.statuses import RunStatus
from realtime_runs.testing import execute_queued_runs
from tests import tasks as t
from tests.tasks_inputs import numbers

pytestmark = pytest.mark.django_db


def test_a_run_argument_is_an_id_a_handle_a_snapshot_or_a_row():
    handle = t.echo.trigger(1)
    snapshot = runs.retrieve(handle.id)
    assert isinstance(snapshot, RealtimeRun)
    for argument in (handle, snapshot, Run.objects.get()):
        assert runs.retrieve(argument).id == handle.id


@pytest.mark.parametrize(
    "ask",
    [
        runs.retrieve,
        runs.cancel,
        runs.replay,
        runs.poll,
        lambda run: runs.reschedule(run, 1),
        lambda run: runs.add_tags(run, "x"),
    ],
)
@pytest.mark.parametrize("unknown", ["run_unknown", "run_\0", ""], ids=["unknown", "NUL", "empty"])
def test_an_unknown_run_is_an_error(ask, unknown):
    with pytest.raises(RunNotFound) as caught:
        ask(unknown)
    assert str(caught.value) == f"Run {unknown!r} does not exist."


@pytest.mark.parametrize(
    "ask",
    [
        lambda run: list(runs.subscribe_to_run(run)),
        lambda run: list(streams.read(run, "log")),
        lambda run: streams.append("log", "x", target=run),
        lambda run: streams.close("log", target=run),
        lambda run: streams.define("log", str).last_sequence(run, "producer"),
        lambda run: numbers.send(run, 1),
    ],
    ids=["subscribe", "read", "append", "close", "last_sequence", "send"],
)
@pytest.mark.django_db(transaction=True)
def test_an_id_that_no_database_can_look_for_is_unknown_wherever_others_may_be_looked_for_too(ask):
    with pytest.raises(RunNotFound):
        ask("run_\0")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("ask", [batch.retrieve, lambda one: list(runs.subscribe_to_batch(one))])
@pytest.mark.parametrize("unknown", ["batch_unknown", "batch_\0"], ids=["unknown", "NUL"])
def test_an_unknown_batch_is_an_error(ask, unknown):
    with pytest.raises(BatchNotFound):
        ask(unknown)


def test_a_run_is_found_by_one_query_and_with_its_packets_only_when_they_are_wanted(django_assert_num_queries):
    run = t.echo.trigger("payload")
    with django_assert_num_queries(1) as queries:
        found = Run.objects.without_packets().find(run.id)
    assert found.pk == run.id
    assert '"payload"' not in queries[0]["sql"]
    with django_assert_num_queries(1):
        assert Run.objects.find(run.id).payload == '"payload"'
    with django_assert_num_queries(0):
        assert Run.objects.find("run_\0") is None
    assert Run.objects.filter(task="another").find(run.id) is None


def test_a_snapshot_cannot_be_changed():
    snapshot = runs.retrieve(t.echo.trigger(1))
    with pytest.raises(AttributeError):
        snapshot.status = RunStatus.COMPLETED


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("QUEUED", {"is_queued"}),
        ("DELAYED", {"is_queued"}),
        ("EXECUTING", {"is_executing"}),
        ("WAITING", {"is_waiting"}),
        ("COMPLETED", {"is_completed", "is_success"}),
        ("CANCELED", {"is_completed", "is_failed", "is_cancelled"}),
        ("FAILED", {"is_completed", "is_failed"}),
        ("EXPIRED", {"is_completed", "is_failed"}),
    ],
)
def test_booleans_are_those_of_the_rest_api(status, words):
    row = Run.objects.get(pk=t.echo.trigger(1).id)
    row.status = status
    names = ["is_queued", "is_executing", "is_waiting", "is_completed", "is_failed", "is_success", "is_cancelled"]
    snapshot = runs.snapshot(row)
    assert {name for name in names if getattr(snapshot, name)} == words


# -- cancel -----------------------------------------------------------------------------------------------------------


def test_cancel_ends_a_queued_and_a_delayed_run():
    for handle in (t.echo.trigger(1), t.echo.trigger(1, delay=60)):
        run = runs.cancel(handle)
        assert (run.status, run.finished_at is not None) == (RunStatus.CANCELED, True)
    assert execute_queued_runs() == []


def test_cancel_of_a_final_run_changes_nothing():
    handle = t.echo.trigger(1)
    execute_queued_runs()
    before = Run.objects.filter(pk=handle.id).values().get()
    assert runs.cancel(handle).status == RunStatus.COMPLETED
    assert Run.objects.filter(pk=handle.id).values().get() == before


def test_cancel_takes_the_children_along_but_not_the_parent():
    family = [t.echo.trigger(n) for n in range(4)]  # 0 → 1 → 2, and 3 beside
    for child, parent in ((1, 0), (2, 1)):
        Run.objects.filter(pk=family[child].id).update(parent=family[parent].id)
    runs.cancel(family[1])
    assert [runs.retrieve(run).status for run in family] == ["QUEUED", "CANCELED", "CANCELED", "QUEUED"]


# -- replay, reschedule -----------------------------------------------------------------------------------------------


def test_replay_repeats_payload_and_options_but_not_the_key():
    old = t.order.trigger(
        {"items": ["a"]}, tags=["x"], queue="q", idempotency_key="k", max_attempts=7, ttl="1h", priority=2
    )
    new = runs.retrieve(runs.replay(old))
    assert new.id != old.id
    assert (new.payload, new.tags, new.queue) == (t.Order(items=["a"]), ("x",), "q")
    assert (new.max_attempts, new.ttl, new.priority, new.idempotency_key) == (7, "1h", 2, "")


def test_replay_takes_overrides_and_checks_them():
    old = t.order.trigger({"items": ["a"]}, tags=["x"])
    new = runs.retrieve(runs.replay(old, payload={"items": ["b"]}, tags=["y"], delay=60))
    assert (new.payload.items, new.tags, new.status) == (["b"], ("y",), RunStatus.DELAYED)
    with pytest.raises(ValueError, match="items"):
        runs.replay(old, payload={"items": 7})
    assert Run.objects.count() == 2


def test_reschedule_moves_a_delayed_run_and_its_ttl():
    handle = t.echo.trigger(1, delay="1h", ttl="10m")
    run = runs.reschedule(handle, "2h")
    assert timedelta(hours=1, minutes=59) < run.delayed_until - run.created_at < timedelta(hours=2, minutes=1)
    row = Run.objects.get()
    assert abs(row.expires_at - row.delayed_until - timedelta(minutes=10)) < timedelta(seconds=1)
    assert row.version == 2


def test_only_delayed_runs_are_rescheduled():
    handle = t.echo.trigger(1)
    with pytest.raises(InvalidTransition, match="QUEUED"):
        runs.reschedule(handle, "2h")
    with pytest.raises(InvalidOption):
        runs.reschedule(t.echo.trigger(1, delay=60), "-2h")


# -- tags -------------------------------------------------------------------------------------------------------------


def test_tags_are_added_in_any_status_and_only_all_together():
    handle = t.echo.trigger(1, tags=["a"])
    execute_queued_runs()
    assert runs.add_tags(handle, ["c", "b", "a"]).tags == ("a", "b", "c")
    assert set(RunTag.objects.values_list("tag", flat=True)) == {"a", "b", "c"}
    with pytest.raises(TooLarge):
        runs.add_tags(handle, [f"t{n}" for n in range(8)])
    assert runs.retrieve(handle).tags == ("a", "b", "c")
    assert RunTag.objects.count() == 3


def test_adding_a_tag_twice_is_no_change():
    handle = t.echo.trigger(1, tags=["a"])
    assert runs.add_tags(handle, "a").version == 1


# -- list -------------------------------------------------------------------------------------------------------------


def test_pages_go_from_new_to_old_and_back():
    made = [t.echo.trigger(n).id for n in range(7)]
    made.sort(reverse=True)
    first = runs.list(page_size=3)
    second = runs.list(page_size=3, after=first.next)
    third = runs.list(page_size=3, after=second.next)
    assert [[run.id for run in page.data] for page in (first, second, third)] == [made[:3], made[3:6], made[6:]]
    assert (first.previous, third.next) == (None, None)
    back = runs.list(page_size=3, before=third.previous)
    assert [run.id for run in back.data] == made[3:6]
    assert [run.id for run in runs.list(page_size=3, before=back.previous).data] == made[:3]
    assert runs.list(page_size=3, before=back.previous).previous is None


def test_before_wins_over_after():
    made = sorted((t.echo.trigger(n).id for n in range(3)), reverse=True)
    assert [run.id for run in runs.list(after=made[1], before=made[1]).data] == [made[0]]


def test_iterating_a_page_goes_through_all_pages():
    made = {t.echo.trigger(n).id for n in range(7)}
    assert [run.id for run in runs.list(page_size=2)] == sorted(made, reverse=True)


@pytest.mark.django_db(transaction=True)
async def test_iterating_works_in_async_code_too():
    made = {(await t.echo.atrigger(n)).id for n in range(3)}
    assert {run.id async for run in await runs.alist(page_size=2)} == made


def test_filters_take_one_value_or_any_of_several():
    one = t.echo.trigger(1, tags=["a"], queue="q", is_test=True)
    two = t.order.trigger({"items": []}, tags=["b"])
    three = t.echo.trigger(1, delay=60)
    many = t.echo.batch_trigger([1])

    def found(**filters):
        return {run.id for run in runs.list(**filters)}

    assert found(task="t-order") == {two.id}
    assert found(status=["DELAYED", "CANCELED"]) == {three.id}
    assert found(tag=["a", "b"]) == {one.id, two.id}
    assert found(queue="q") == found(is_test=True) == {one.id}
    assert found(batch=many) == set(many.run_ids)
    assert found(period="1h") == {one.id, two.id, three.id, *many.run_ids}
    assert found(created_before=timezone.now() - timedelta(hours=1)) == set()
    assert found(created_after=timezone.now() - timedelta(hours=1), task="t-order") == {two.id}


@pytest.mark.parametrize(
    "filters",
    [
        {"status": "DONE"},
        {"page_size": 0},
        {"page_size": 101},
        {"page_size": True},
        {"after": "run_unknown"},
        {"period": "-1h"},
        {"created_after": datetime(2026, 1, 1)},
        {"tag": "a\0"},
        {"task": [1]},
    ],
)
def test_a_bad_filter_is_an_error(filters):
    with pytest.raises(InvalidOption):
        runs.list(**filters)


# -- poll -------------------------------------------------------------------------------------------------------------


def test_poll_returns_the_final_run():
    handle = t.echo.trigger(1)
    execute_queued_runs()
    assert runs.poll(handle).is_success


def test_poll_gives_up_after_its_timeout():
    with pytest.raises(PollTimeout, match="QUEUED"):
        runs.poll(t.echo.trigger(1), interval=0.01, timeout=0.05)


@pytest.mark.django_db(transaction=True)
async def test_poll_has_an_async_twin():
    assert (await runs.apoll(await t.echo.atrigger(5))).output == 5
