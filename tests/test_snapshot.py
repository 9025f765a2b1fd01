import dataclasses
import json
from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from realtime_runs.live.snapshot import RealtimeRun, RunError, snapshot, typed
from realtime_runs.models import Run
from realtime_runs.packets import PLAIN_TEXT, SUPER_JSON
from realtime_runs.statuses import FINAL, RunStatus
from realtime_runs.tasks import Retry, Task

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def make_row():
    """A row that is not stored: a snapshot asks no database (and pytest would not let it)."""

    def make(**values):
        times = dict.fromkeys(("created_at", "updated_at", "run_at", "rank"), NOW)
        return Run(**({"id": "run_1", "task": "job", "status": RunStatus.QUEUED} | times | values))

    return make


@pytest.fixture
def types():
    def job(payload: datetime) -> timedelta:
        pass

    return Task(job, id="job", queue="default", retry=Retry(), ttl=None, max_duration=None)


def test_a_snapshot_has_what_the_row_has(make_row):
    moments = ("queued_at", "started_at", "finished_at", "delayed_until", "expired_at")
    values = {name: NOW + timedelta(seconds=number) for number, name in enumerate(moments)} | {
        "version": 7,
        "ttl": "1h",
        "max_attempts": 4,
        "max_duration": 2.5,
        "queue": "slow",
        "concurrency_key": "user:1",
        "priority": -1.0,
        "is_test": True,
        "idempotency_key": "key",
        "batch_id": "batch_1",
        "parent_id": "run_0",
        "root_id": "run_00",
        "depth": 2,
        "trigger_function": "batchTrigger",
    }
    run = snapshot(make_row(task="job", attempt=3, tag_names=["a", "b"], realtime_streams=["s"], **values))
    assert {name: getattr(run, name) for name in values} == values
    assert (run.task_identifier, run.attempt_count, run.tags, run.realtime_streams) == ("job", 3, ("a", "b"), ("s",))
    assert (run.id, run.created_at, run.updated_at, run.status) == ("run_1", NOW, NOW, RunStatus.QUEUED)
    assert isinstance(run.status, RunStatus)


def test_a_snapshot_has_the_packets_the_metadata_and_the_error_of_the_row(make_row):
    given = {"payload": "1", "output": "2", "output_type": "text/plain", "error": RunError("E", "m").to_json()}
    run = snapshot(make_row(**given, metadata='{"a": 1}'))
    assert run.payload_packet.text == "1"
    assert (run.output_packet.text, run.output_packet.type) == ("2", "text/plain")
    assert (run.metadata, run.error) == ({"a": 1}, RunError("E", "m"))


@pytest.mark.parametrize("name", ["status", "version", "tags", "payload", "error", "new"])
def test_a_snapshot_cannot_be_changed(make_row, name):
    run = snapshot(make_row())
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(run, name, 1)


def test_a_snapshot_stays_as_it_was_when_the_row_goes_on(make_row):
    row = make_row(tag_names=["a"])
    run = snapshot(row)
    row.tag_names.append("b")
    row.status, row.version = RunStatus.EXECUTING, 2
    assert (run.tags, run.status, run.version) == (("a",), RunStatus.QUEUED, 1)


# wire-protocol 1.6, the row "REST"
QUESTIONS = {
    "is_queued": {RunStatus.QUEUED, RunStatus.DELAYED},
    "is_executing": {RunStatus.EXECUTING},
    "is_waiting": {RunStatus.WAITING},
    "is_completed": FINAL,
    "is_failed": FINAL - {RunStatus.COMPLETED},
    "is_success": {RunStatus.COMPLETED},
    "is_cancelled": {RunStatus.CANCELED},
}


@pytest.mark.parametrize("status", RunStatus)
def test_a_snapshot_answers_the_questions_of_the_protocol(make_row, status):
    run = snapshot(make_row(status=status.value))
    assert {name for name in QUESTIONS if getattr(run, name)} == {
        name for name in QUESTIONS if status in QUESTIONS[name]
    }


@pytest.mark.parametrize(
    ("started", "finished", "milliseconds"),
    [(0, 1.2346, 1235), (0, 0, 0), (None, 5, 0), (5, None, 0), (None, None, 0), (1, 0, 0), (0, 90_000, 90_000_000)],
)
def test_the_duration_is_from_start_to_end_in_milliseconds(make_row, started, finished, milliseconds):
    moments = [None if seconds is None else NOW + timedelta(seconds=seconds) for seconds in (started, finished)]
    assert snapshot(make_row(started_at=moments[0], finished_at=moments[1])).duration_ms == milliseconds


@pytest.mark.parametrize(
    ("text", "type_", "value"),
    [
        (None, "application/json", None),
        ("null", "application/json", None),
        ('{"a": [1]}', "application/json", {"a": [1]}),
        ('{"json": 5}', SUPER_JSON, 5),
        ("[1", PLAIN_TEXT, "[1"),
    ],
)
def test_payload_and_output_are_plain_json_where_the_task_is_not_known(make_row, text, type_, value):
    run = snapshot(make_row(payload=text, payload_type=type_, output=text, output_type=type_))
    assert run.payload == run.output == value


def test_payload_and_output_have_the_types_of_the_task(make_row, types):
    row = make_row(payload='"2026-01-01T12:00:00Z"', output='"PT1M"')
    run = snapshot(row, types)
    assert (run.payload, run.output) == (NOW, timedelta(minutes=1))
    assert typed(snapshot(row), types).output == timedelta(minutes=1)


def test_types_may_be_given_to_a_snapshot_that_was_read_before(make_row, types):
    plain = snapshot(make_row(output='"PT1M"'))
    assert plain.output == "PT1M"
    assert typed(plain, types).output == timedelta(minutes=1)
    assert typed(plain, None) is plain


def test_there_is_no_output_before_the_end(make_row, types):
    # Not even one that the type would refuse.
    assert snapshot(make_row(), types).output is None


def test_decoding_happens_once(make_row):
    run = snapshot(make_row(payload="[1]", metadata='{"a": 1}'))
    assert run.payload is run.payload
    assert run.metadata is run.metadata


def test_the_text_of_a_snapshot_shows_no_data(make_row):
    # It goes into logs.
    run = snapshot(make_row(payload='"secret"', output='"secret"', metadata='{"a": "secret"}'))
    assert "run_1" in repr(run)
    assert "secret" not in repr(run)


@pytest.mark.parametrize("text", ["é", "\ud800", "a\0b", '"\\', ""])
def test_an_error_comes_back_as_it_was_and_can_be_stored(text):
    error = RunError("ValueError", text, f"Traceback {text}")
    stored = error.to_json()
    stored.encode()
    assert "\0" not in stored
    assert RunError.from_json(stored) == error


def test_no_error_is_none():
    assert RunError.from_json("") is None


def test_snapshots_of_one_run_are_objects_of_their_own(make_row):
    row = make_row()
    assert len({snapshot(row), snapshot(row)}) == 2


@pytest.mark.django_db
def test_the_times_of_a_stored_run_are_aware(make_row):
    make_row().save()
    run = snapshot(Run.objects.get())
    assert isinstance(run, RealtimeRun)
    assert not timezone.is_naive(run.created_at)
    assert run.created_at == NOW


@pytest.mark.django_db
def test_odd_characters_survive_the_database(make_row):
    text = json.dumps({"a": "\ud800\0é\U0001f600"})
    make_row(metadata=text, output=text, error=RunError("E", "\ud800\0").to_json()).save()
    run = snapshot(Run.objects.get())
    assert run.metadata == run.output == {"a": "\ud800\0é\U0001f600"}
    assert run.error.message == "\ud800\0"
