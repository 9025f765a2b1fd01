from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import transaction
from django.utils import timezone

from realtime_runs import batch, runs, tasks
from realtime_runs.exceptions import (
    BatchNotFound,
    InvalidInput,
    InvalidOption,
    NotJson,
    PayloadInvalid,
    TooLarge,
    UnknownTask,
)
from realtime_runs.models import Batch, IdempotencyClaim, Run, RunEvent, RunTag, Tag
from realtime_runs.packets import SUPER_JSON, Packet
from realtime_runs.statuses import RunStatus
from realtime_runs.testing import execute_queued_runs
from tests.tasks import Order, Receipt, abort, echo, nothing, order

pytestmark = pytest.mark.django_db


def nothing_is_stored() -> bool:
    return not any(model.objects.exists() for model in (Run, Batch, Tag, RunTag, RunEvent, IdempotencyClaim))


def test_a_trigger_makes_a_queued_run_with_what_was_given():
    handle = order.trigger({"items": ["a"]}, tags=["b", "a", "b", " "], metadata={"step": 0}, queue="q", priority=5)
    run = runs.retrieve(handle)
    assert handle.id.startswith("run_")
    assert not handle.is_cached
    assert (run.status, run.version, run.attempt_count) == (RunStatus.QUEUED, 1, 0)
    assert run.tags == ("a", "b")
    assert run.metadata == {"step": 0}
    assert (run.queue, run.priority, run.max_attempts) == ("q", 5, 2)
    assert run.payload == Order(items=["a"])
    assert run.trigger_function == "trigger"


def test_a_payload_may_be_an_instance_of_its_type():
    assert runs.retrieve(order.trigger(Order(items=["é"], rush=True))).payload == Order(items=["é"], rush=True)


def test_output_and_payload_come_back_in_the_types_of_the_task():
    handle = order.trigger(Order(items=["a", "b"]))
    execute_queued_runs()
    assert runs.retrieve(handle).output == Receipt(processed=2)


def test_trigger_by_id_checks_the_payload_too():
    with pytest.raises(PayloadInvalid) as caught:
        tasks.trigger("t-order", {"items": "no list", "rush": 7})
    assert [error["loc"] for error in caught.value.errors] == [("items",), ("rush",)]
    assert "items" in str(caught.value)
    assert nothing_is_stored()


def test_an_unknown_task_is_named_beside_the_known_ones():
    with pytest.raises(UnknownTask, match=r"'t-ordre' does not exist.*t-order"):
        tasks.trigger("t-ordre", {})


def test_an_unknown_option_is_a_type_error():
    with pytest.raises(TypeError, match="prioritty"):
        tasks.trigger("t-echo", 1, prioritty=1)
    assert nothing_is_stored()


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        (float("nan"), NotJson),
        ({"deep": [float("inf")]}, NotJson),
        ("a\0b", NotJson),
        ({"a\0b": 1}, NotJson),
        ("\ud800", NotJson),
        (object(), NotJson),
        ("x" * (3 * 1024 * 1024), TooLarge),
    ],
)
def test_a_payload_that_cannot_be_stored_is_refused_at_once(payload, error):
    with pytest.raises(error):
        echo.trigger(payload)
    assert nothing_is_stored()


def test_a_payload_of_exactly_the_limit_is_taken():
    echo.trigger("x" * (3 * 1024 * 1024 - 2))  # two quotes
    assert Run.objects.count() == 1


def test_payloads_are_what_pydantic_can_serialise():
    when = datetime(2026, 1, 2, tzinfo=UTC)
    assert runs.retrieve(echo.trigger({"price": Decimal("1.50"), "when": when})).payload == {
        "price": "1.50",
        "when": "2026-01-02T00:00:00Z",
    }


def test_a_packet_is_kept_verbatim():
    text = '{"json": {"items" : ["a"]}, "meta": {"values": {}}}'
    run = Run.objects.get(pk=tasks.trigger("t-order", Packet(text, SUPER_JSON)).id)
    assert (run.payload, run.payload_type) == (text, SUPER_JSON)
    assert runs.retrieve(run).payload == Order(items=["a"])


def test_a_task_without_payload_refuses_one():
    nothing.trigger()
    nothing.trigger({})
    with pytest.raises(PayloadInvalid, match="takes no payload"):
        nothing.trigger({"a": 1})


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"tags": [f"t{n}" for n in range(11)]}, TooLarge),
        ({"tags": ["x" * 129]}, TooLarge),
        ({"tags": ["a\0"]}, NotJson),
        ({"tags": [1]}, InvalidOption),
        ({"metadata": {"big": "x" * (256 * 1024)}}, TooLarge),
        ({"metadata": {"nan": float("nan")}}, NotJson),
        ({"metadata": [1]}, InvalidOption),
        ({"delay": -1}, InvalidOption),
        ({"delay": float("inf")}, InvalidOption),
        ({"delay": datetime(2026, 1, 1)}, InvalidOption),  # naive
        ({"ttl": "soon"}, InvalidOption),
        ({"idempotency_key": "x" * 2049}, InvalidOption),
        ({"idempotency_key": "a\0"}, NotJson),
        ({"priority": float("nan")}, InvalidOption),
        ({"max_attempts": 0}, InvalidOption),
        ({"max_duration": "-1s"}, InvalidOption),
        ({"queue": "x" * 256}, InvalidOption),
    ],
)
def test_a_bad_option_is_an_error_and_leaves_nothing(options, error):
    with pytest.raises(error):
        echo.trigger(1, **options)
    assert nothing_is_stored()


def test_ten_tags_of_128_characters_are_taken():
    names = [f"{n}" + "é" * 127 for n in range(10)]
    assert runs.retrieve(echo.trigger(1, tags=names)).tags == tuple(names)


def test_a_delay_makes_a_delayed_run_and_a_past_time_means_now():
    later = runs.retrieve(echo.trigger(1, delay="1h30m"))
    assert later.status == RunStatus.DELAYED
    assert later.delayed_until - later.created_at == timedelta(minutes=90)
    assert runs.retrieve(echo.trigger(1, delay=timezone.now() - timedelta(days=3650))).status == RunStatus.QUEUED


def test_priority_is_seconds_of_head_start():
    first, second, third = echo.trigger(1), echo.trigger(2, priority=10), echo.trigger(3, priority=3600)
    assert [run.id for run in Run.objects.ready()] == [third.id, second.id, first.id]


def test_a_key_gives_the_same_run_until_it_is_freed():
    first = echo.trigger(1, idempotency_key="k")
    again = echo.trigger(2, idempotency_key="k")
    assert (again.id, again.is_cached) == (first.id, True)
    assert order.trigger({"items": []}, idempotency_key="k").id != first.id, "keys belong to a task"
    assert runs.retrieve(first).idempotency_key == "k"


def test_the_key_is_kept_by_success_and_cancel_and_freed_by_failure():
    done = echo.trigger(1, idempotency_key="k")
    failed = abort.trigger(idempotency_key="k")
    canceled = order.trigger({"items": []}, idempotency_key="k")
    runs.cancel(canceled)
    execute_queued_runs()
    assert echo.trigger(1, idempotency_key="k").id == done.id
    assert order.trigger({"items": []}, idempotency_key="k").id == canceled.id
    assert abort.trigger(idempotency_key="k").id != failed.id


def test_an_expired_key_makes_a_new_run():
    first = echo.trigger(1, idempotency_key="k", idempotency_key_ttl=0)
    second = echo.trigger(1, idempotency_key="k")
    assert second.id != first.id
    assert echo.trigger(1, idempotency_key="k").id == second.id


def test_inside_a_transaction_the_handle_is_usable_at_once_and_a_rollback_leaves_nothing():
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        handle = echo.trigger(1, tags=["t"], idempotency_key="k")
        assert runs.retrieve(handle).status == RunStatus.QUEUED
        raise ZeroDivisionError
    assert nothing_is_stored()


@pytest.mark.django_db(transaction=True)
def test_a_run_starts_on_commit():
    with transaction.atomic():
        handle = echo.trigger(1)
        assert runs.retrieve(handle).status == RunStatus.QUEUED
    assert runs.retrieve(handle).status == RunStatus.COMPLETED


def test_a_batch_makes_all_runs_in_order():
    handle = echo.batch_trigger([1, 2, 3], tags=["b"])
    state = batch.retrieve(handle)
    assert state.run_count == handle.run_count == 3
    assert state.run_ids == handle.run_ids
    assert not state.is_completed
    execute_queued_runs()
    assert [runs.retrieve(run_id).output for run_id in handle.run_ids] == [1, 2, 3]
    assert batch.retrieve(handle.id).is_completed


def test_a_mixed_batch_takes_tasks_and_ids_with_options_of_their_own():
    handle = batch.trigger(
        [
            {"task": echo, "payload": 1, "options": {"tags": ["x"]}},
            {"task": "t-order", "payload": {"items": []}, "options": {"delay": 60}},
        ]
    )
    one, other = (runs.retrieve(run_id) for run_id in handle.run_ids)
    assert (one.task_identifier, one.tags, one.batch_id) == ("t-echo", ("x",), handle.id)
    assert (other.task_identifier, other.status) == ("t-order", RunStatus.DELAYED)


@pytest.mark.parametrize(
    "bad", [{"task": "t-order", "payload": 1}, {"task": "t-echo", "options": {"tags": ["x" * 129]}}, {}, 7]
)
def test_one_bad_item_refuses_the_whole_batch_and_is_named(bad):
    with pytest.raises(InvalidInput) as caught:
        batch.trigger([{"task": "t-echo", "payload": 1}, bad])
    assert "1 of the batch" in " ".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert nothing_is_stored()


def test_a_batch_has_at_least_one_and_at_most_1000_items():
    with pytest.raises(InvalidInput):
        echo.batch_trigger([])
    with pytest.raises(TooLarge, match="1,001 items"):
        echo.batch_trigger(range(1001))
    assert echo.batch_trigger(range(1000)).run_count == 1000


def test_keys_within_a_batch_give_the_run_that_holds_them():
    held = echo.trigger(0, idempotency_key="k")
    handle = batch.trigger(
        [
            {"task": "t-echo", "payload": n, "options": {"idempotency_key": key}}
            for n, key in enumerate(["k", "new", "new"])
        ]
    )
    assert handle.run_ids[0] == held.id
    assert handle.run_ids[1] == handle.run_ids[2]
    assert batch.retrieve(handle).run_ids == (handle.run_ids[1],)


def test_an_unknown_batch_is_an_error():
    with pytest.raises(BatchNotFound, match="batch_x"):
        batch.retrieve("batch_x")


@pytest.mark.django_db(transaction=True)
async def test_the_async_twins_do_the_same():
    handle = await echo.atrigger({"a": 1}, tags=["t"])
    assert (await runs.aretrieve(handle)).output == {"a": 1}
    assert (await tasks.atrigger("t-echo", 5)).id.startswith("run_")
    many = await batch.atrigger([{"task": "t-echo", "payload": 1}])
    assert (await batch.aretrieve(many)).is_completed
