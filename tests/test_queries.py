"""The hot queries, by their plans in a table with some thousand runs, and the rules that the database itself keeps."""

import json
import re
from dataclasses import dataclass
from datetime import timedelta

import pytest
from django.apps import apps
from django.db import IntegrityError, connection, transaction
from django.db.models import Model
from django.utils import timezone

from realtime_runs import runs
from realtime_runs.engine import hooks, idempotency, lifecycle, retention
from realtime_runs.engine.context import Lease
from realtime_runs.engine.options import hash_key
from realtime_runs.live import reading
from realtime_runs.models import (
    Attempt,
    Batch,
    BatchItem,
    IdempotencyClaim,
    Run,
    RunEvent,
    RunTag,
    Stream,
    StreamChunk,
    Tag,
    WaitToken,
)
from realtime_runs.models.bulk import insert_many
from realtime_runs.models.wait_token import WaitTokenTag
from realtime_runs.statuses import RunStatus

pytestmark = pytest.mark.django_db

TASKS = [f"task-{number}" for number in range(20)]
FINISHED = 4000  # one every 10 minutes, in batches of 10
WAITING_IN_QUEUE = 1200
PAGE = 200


def run_id(number):
    return f"run_{number:05d}"


@pytest.fixture(scope="module")
def many_runs(django_db_setup, django_db_blocker):
    """Runs as a busy project has them, most of them over. Each test rolls back only what it adds."""
    with django_db_blocker.unblock(), transaction.atomic():
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                # Rows that other tests rolled back still take space, and a table's size is part of each plan's cost.
                cursor.execute("TRUNCATE realtime_runs_run, realtime_runs_batch, realtime_runs_tag CASCADE")
        insert_runs()
        connection.check_constraints()  # now, or PostgreSQL does it for all of these rows at the end of each test
        if connection.vendor == "postgresql":  # SQLite plans without statistics, as it does for everybody
            with connection.cursor() as cursor:
                cursor.execute("ANALYZE")
                # What the indexes are good for, not what pays in a table of this size.
                cursor.execute("SET LOCAL enable_seqscan = off")
                cursor.execute("SET LOCAL enable_bitmapscan = off")
        yield
        transaction.set_rollback(True)


def insert_runs():
    now = timezone.now()
    blank = Run()
    defaults = {field.attname: getattr(blank, field.attname) for field in Run._meta.concrete_fields}
    rows = []

    def add(count, status, **values):
        for _ in range(count):
            number = len(rows)
            at = now - timedelta(minutes=10) * max(0, FINISHED - number)
            its = {name: value(number, at) if callable(value) else value for name, value in values.items()}
            times = dict.fromkeys(("created_at", "updated_at", "run_at", "rank"), at)
            task = "task-rare" if number % 500 == 7 else TASKS[number % 20]
            rows.append({**defaults, "id": run_id(number), "task": task, "status": status, **times, **its})

    def soon(number, at):
        """Ten of a hundred are due, the others later."""
        return now + timedelta(minutes=number % 100 - 10)

    add(
        FINISHED,
        RunStatus.COMPLETED,
        finished_at=lambda number, at: at,
        batch_id=lambda number, at: f"batch_{number // 10}",
        batch_index=lambda number, at: number % 10,
        parent_id=lambda number, at: run_id(number - 1) if number % 5 else None,
    )
    add(
        200, RunStatus.FAILED, finished_at=now, hook_at=lambda number, at: soon(number, at) if number % 4 == 0 else None
    )
    add(WAITING_IN_QUEUE, RunStatus.QUEUED, expires_at=lambda number, at: soon(number, at) if number % 3 == 0 else None)
    add(600, RunStatus.DELAYED, delayed_until=soon)
    add(100, RunStatus.EXECUTING, lease_token="token", lease_until=soon, attempt=1)
    Batch.objects.bulk_create(Batch(id=f"batch_{n}", run_count=10, created_at=now) for n in range(FINISHED // 10))
    insert_many(Run, tuple(defaults), [tuple(row.values()) for row in rows])
    Tag.objects.bulk_create(Tag(name=f"tag-{number}", created_at=now) for number in range(200))
    insert_many(RunTag, ("run_id", "tag_id"), [(row["id"], f"tag-{n % 200}") for n, row in enumerate(rows)])
    insert_many(
        IdempotencyClaim,
        ("task", "key_hash", "run_id", "expires_at"),
        [(row["task"], hash_key(row["id"]), row["id"], now) for row in rows[::2]],
    )


# -- plans

# SQLite names the indexes of constraints by itself.
NAMES = {
    "sqlite_autoindex_realtime_runs_run_1": "the primary key",
    "realtime_runs_run_pkey": "the primary key",
    "sqlite_autoindex_realtime_runs_run_tag_1": "run_tag_once",
    "sqlite_autoindex_realtime_runs_idempotency_claim_1": "idempotency_key_once_per_task",
}
PARTIAL = {index.name for index in Run._meta.indexes if index.condition}


@dataclass
class Access:
    """How a statement reaches the rows of a table: by which index, and what bounds the part of it that is read."""

    table: str
    index: str = ""
    bounds: str = ""

    @property
    def reads_all_runs(self):
        return self.table == Run._meta.db_table and not self.bounds and self.index not in PARTIAL


@dataclass
class Plan:
    sql: str
    text: str
    accesses: list[Access]
    sorts: bool

    def __str__(self):
        return f"{self.sql}\n{self.text}"


def explain(sql, params):
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute(f"EXPLAIN QUERY PLAN {sql}", params)
            lines = [row[3] for row in cursor.fetchall()]
            pattern = r"(?:SEARCH|SCAN) (\S+)(?: USING (?:COVERING )?INDEX (\S+))?(?: \((.*)\))?"
            found = [match.groups(default="") for line in lines if (match := re.match(pattern, line))]
            sorts = any(line.startswith("USE TEMP B-TREE FOR ORDER BY") for line in lines)
            return Plan(sql, "\n".join(lines), [Access(t, NAMES.get(i, i), bounds) for t, i, bounds in found], sorts)
        cursor.execute(f"EXPLAIN (FORMAT JSON) {sql}", params)
        found = cursor.fetchone()[0]
    nodes = list(walk(found[0]["Plan"]))
    accesses = [
        Access(node.get("Relation Name", ""), index_name(node.get("Index Name", "")), node.get("Index Cond", ""))
        for node in nodes
        if "Scan" in node["Node Type"] and node["Node Type"] != "Bitmap Heap Scan"
    ]
    return Plan(sql, json.dumps(found, indent=1), accesses, any(node["Node Type"] == "Sort" for node in nodes))


def index_name(name):
    # Django makes a second index of a text key, for LIKE.
    return "the primary key" if re.match("realtime_runs_run_id_.*_like$", name) else NAMES.get(name, name)


def walk(node):
    yield node
    for part in node.get("Plans", ()):
        yield from walk(part)


@pytest.fixture
def plans(many_runs):
    """`plans(fn)`: how the database carries out each statement that `fn` sends, except inserts."""

    def collect(fn):
        found = []

        def look(execute, sql, params, many, context):
            if re.match("SELECT|UPDATE|DELETE", sql) and "realtime_runs_" in sql:
                found.append(explain(sql, params))
            return execute(sql, params, many, context)

        with connection.execute_wrapper(look):
            fn()
        assert found
        return found

    return collect


def batch_of(*ids):
    return [run_id(number) for number in ids]


def query(runs):
    return lambda: list(runs.values_list("pk", flat=True)[:PAGE])


RECENT = timedelta(minutes=25)
EXECUTING = FINISHED + 200 + WAITING_IN_QUEUE + 600  # number of the first one


# What is asked, the index that serves it, the column that bounds what is read, and whether rows come out in order.
@pytest.mark.parametrize(
    ("ask", "index", "bound", "in_order"),
    [
        pytest.param(lambda: lifecycle.claim(TASKS, 10), "run_ready_idx", "", True, id="claim"),
        pytest.param(lambda: lifecycle.claim(TASKS[:1], 10), "run_ready_idx", "", True, id="claim for one task"),
        pytest.param(
            query(Run.objects.due().order_by("delayed_until")), "run_due_idx", "delayed_until", True, id="due"
        ),
        pytest.param(
            query(Run.objects.expired().order_by("expires_at")), "run_expired_idx", "expires_at", True, id="expired"
        ),
        pytest.param(
            query(Run.objects.stalled().order_by("lease_until")), "run_stalled_idx", "lease_until", True, id="stalled"
        ),
        pytest.param(
            query(Run.objects.queued_longer_than(5).order_by("rank")),
            "run_ready_idx",
            "",
            True,
            id="queued longer than",
        ),
        pytest.param(
            query(Run.objects.queued_longer_than(300).exclude(task__in=TASKS).order_by("rank")),
            *("run_ready_idx or run_status_idx", "", False),  # it reads the whole queue anyway
            id="queued for unknown tasks",
        ),
        pytest.param(lambda: hooks.due_hooks(TASKS, 50), "run_hook_idx", "hook_at", False, id="hooks due"),
        pytest.param(lambda: hooks.due_hooks(TASKS[:1], 50), "run_hook_idx", "hook_at", False, id="hooks of one task"),
        pytest.param(lambda: reading.read_versions(batch_of(1, 2)), "the primary key", "id", True, id="versions"),
        pytest.param(lambda: reading.read_runs(batch_of(1, 2)), "the primary key", "id", True, id="runs"),
        pytest.param(
            lambda: reading.read_changed(timezone.now() - RECENT, ["tag-1", "tag-2"], []),
            *("run_updated_idx", "updated_at", True),
            id="changed, of tags",
        ),
        pytest.param(
            lambda: reading.read_changed(timezone.now() - RECENT, ["tag-1"], ["batch_1"]),
            *("run_updated_idx", "updated_at", True),
            id="changed, of tags and batches",
        ),
        pytest.param(
            lambda: reading.read_changed(timezone.now() - RECENT, [], ["batch_1", "batch_2"]),
            *("run_updated_idx or run_batch_idx", "", True),  # depends on how much changed
            id="changed, of batches",
        ),
        pytest.param(
            lambda: reading.read_tagged(["tag-5"], timedelta(days=2), 1000),
            *("run_tag_by_tag_idx", "tag_id", False),
            id="tagged",
        ),
        pytest.param(
            lambda: reading.read_tagged(["tag-5", "tag-6"], timedelta(days=2), 1000),
            *("run_tag_by_tag_idx", "tag_id", False),
            id="with two tags",
        ),
        pytest.param(lambda: reading.read_batch("batch_3"), "run_batch_idx", "batch_id", True, id="batch"),
        pytest.param(lambda: runs.cancel(run_id(EXECUTING)), "run_parent_idx", "parent_id", True, id="children"),
        pytest.param(lambda: runs.list(status="FAILED"), "run_status_idx", "status", True, id="list by status"),
        pytest.param(lambda: runs.list(task="task-rare"), "run_task_idx", "task", True, id="list by task"),
        pytest.param(lambda: runs.list(tag="tag-3"), "run_tag_by_tag_idx", "tag_id", False, id="list by tag"),
        pytest.param(lambda: runs.list(batch="batch_3"), "run_batch_idx", "batch_id", False, id="list by batch"),
        pytest.param(lambda: runs.list(after=run_id(2000)), "the primary key", "id", True, id="list the next page"),
        pytest.param(lambda: runs.list(before=run_id(2000)), "the primary key", "id", True, id="list the page before"),
        pytest.param(
            lambda: next(retention.prune(timedelta(days=27))), "run_prune_idx", "finished_at", True, id="prune"
        ),
        pytest.param(
            lambda: list(retention.prune(timedelta(days=27), dry_run=True)),
            *("run_prune_idx", "finished_at", True),
            id="count what to prune",
        ),
        pytest.param(
            lambda: idempotency.holder_of("task-1", "key"),
            *("idempotency_key_once_per_task", "key_hash", False),
            id="who holds a key",
        ),
        pytest.param(
            lambda: idempotency.claim_key("task-1", "key", run_id(1), timedelta(days=1)),
            *("idempotency_key_once_per_task", "key_hash", False),
            id="claim a key",
        ),
        pytest.param(
            lambda: lifecycle.renew([Lease(run_id(EXECUTING), 1, "token")]), "the primary key", "id", True, id="renew"
        ),
    ],
)
def test_a_hot_query_reads_what_it_needs_and_no_more(plans, ask, index, bound, in_order):
    found = plans(ask)
    everything = "\n\n".join(map(str, found))
    serving = [
        plan for plan in found if any(a.index in index.split(" or ") and bound in a.bounds for a in plan.accesses)
    ]
    assert serving, f"{index} is not used, or not bounded by {bound!r}:\n\n{everything}"
    assert not (in_order and serving[0].sorts), f"sorted after reading:\n\n{serving[0]}"
    for plan in found:
        assert not any(access.reads_all_runs for access in plan.accesses), f"reads all runs:\n\n{plan}"


def test_the_newest_runs_are_read_from_the_end_of_the_primary_key(plans):
    (plan,) = plans(runs.list)
    assert [access.index for access in plan.accesses] == ["the primary key"], plan
    assert not plan.sorts, plan


def test_pruning_to_the_end_reads_old_runs_only(plans):
    # After the last page it looks for batches and tags that nobody needs any more.
    for plan in plans(lambda: list(retention.prune(timedelta(days=27)))):
        assert not any(access.reads_all_runs for access in plan.accesses), plan


# -- rules


RIGHT_NOW = timezone.now()
TIMES = dict.fromkeys(("created_at", "updated_at", "run_at", "rank"), RIGHT_NOW)
QUEUED = {"id": "run_x", "task": "t", "status": RunStatus.QUEUED, **TIMES}
LEASED = {**QUEUED, "status": RunStatus.EXECUTING, "lease_token": "t", "lease_until": RIGHT_NOW}


@pytest.mark.parametrize(
    "values",
    [
        QUEUED,
        LEASED,
        {**LEASED, "status": RunStatus.WAITING},
        {**QUEUED, "status": RunStatus.DELAYED, "delayed_until": RIGHT_NOW},
        {**QUEUED, "status": RunStatus.FAILED, "finished_at": RIGHT_NOW},
        {**QUEUED, "parent_id": "run_gone", "root_id": "run_gone"},  # a parent may be pruned before its children
    ],
    ids=lambda values: values["status"],
)
def test_the_database_takes_runs_as_they_should_be(many_runs, values):
    Run.objects.create(**values)
    connection.check_constraints()


def claim(**values):
    return IdempotencyClaim(**{"task": "t", "key_hash": "h", "run_id": run_id(1), "expires_at": RIGHT_NOW, **values})


def attempt(**values):
    return Attempt(**{"run_id": run_id(1), "number": 1, "worker": "w", "started_at": RIGHT_NOW, **values})


def stream(**values):
    return Stream(**{"pk": 1, "run_id": run_id(1), "kind": "output", "key": "k", "created_at": RIGHT_NOW, **values})


def chunk(**values):
    given = {"stream_id": 1, "index": 0, "data": b"1", "producer": "p", "sequence": 0, "created_at": RIGHT_NOW}
    return StreamChunk(**given | values)


def token(**values):
    return WaitToken(**{"created_at": RIGHT_NOW, "timeout_at": RIGHT_NOW, **values})


def open_batch(**values):
    return Batch(run_count=1, is_open=True, created_at=RIGHT_NOW, **values)


VIOLATIONS = [
    ("run_status_is_known", [Run(**QUEUED | {"status": "DONE"})]),
    ("run_is_finished_when_final", [Run(**QUEUED | {"status": "FAILED"})]),
    ("run_is_finished_when_final", [Run(**QUEUED, finished_at=RIGHT_NOW)]),
    ("run_is_leased_while_executing", [Run(**LEASED | {"lease_token": ""})]),
    ("run_is_leased_while_executing", [Run(**LEASED | {"lease_until": None})]),
    ("run_is_leased_while_executing", [Run(**QUEUED, lease_token="t")]),
    ("run_is_leased_while_executing", [Run(**QUEUED, lease_until=RIGHT_NOW)]),
    ("run_delayed_has_time", [Run(**QUEUED | {"status": "DELAYED"})]),
    ("run_tag_once", [RunTag(run_id=run_id(1), tag_id="t"), RunTag(run_id=run_id(1), tag_id="t")]),
    ("attempt_number_once_per_run", [attempt(), attempt()]),
    ("idempotency_key_once_per_task", [claim(), claim(run_id=run_id(2))]),
    ("batch_key_once", [open_batch(key_hash="h"), open_batch(key_hash="h")]),
    (
        "batch_item_once",
        [open_batch(pk="b"), BatchItem(batch_id="b", index=0), BatchItem(batch_id="b", index=0)],
    ),
    ("stream_once_per_run", [stream(), stream(pk=2)]),
    ("stream_says_why_it_is_closed", [stream(closed_at=RIGHT_NOW)]),
    ("stream_says_why_it_is_closed", [stream(end_reason="closed")]),
    ("chunk_index_once_per_stream", [chunk(), chunk(sequence=1)]),
    ("chunk_once_per_producer", [chunk(), chunk(index=1)]),
    ("chunk_record_once", [chunk(record_id="r"), chunk(record_id="r", index=1, sequence=1)]),
    ("wait_token_status_is_known", [token(status="DONE")]),
    ("wait_token_completed_has_time", [token(status="COMPLETED")]),
    ("wait_token_completed_has_time", [token(completed_at=RIGHT_NOW)]),
    ("wait_token_key_once", [token(key_hash="h"), token(key_hash="h")]),
    (
        "wait_token_tag_once",
        [token(pk="t"), WaitTokenTag(token_id="t", name="n"), WaitTokenTag(token_id="t", name="n")],
    ),
]


@pytest.mark.parametrize(("name", "rows"), VIOLATIONS)
def test_the_database_refuses_rows_that_must_not_be(many_runs, name, rows):
    *fine, bad = rows
    for row in fine:
        row.save(force_insert=True)
    columns = {
        "run_tag_once": "run_id",
        "attempt_number_once_per_run": "number",
        "idempotency_key_once_per_task": "key",
        "batch_key_once": "key_hash",
        "batch_item_once": "index",
        "stream_once_per_run": "key",
        "chunk_index_once_per_stream": "index",
        "chunk_once_per_producer": "sequence",
        "chunk_record_once": "record_id",
        "wait_token_key_once": "key_hash",
        "wait_token_tag_once": "name",
    }
    # SQLite names the columns of a unique constraint instead of the constraint.
    with pytest.raises(IntegrityError, match=f"{name}|UNIQUE.*{columns.get(name, name)}"), transaction.atomic():
        bad.save(force_insert=True)


def test_every_rule_was_broken_once():
    models: list[type[Model]] = list(apps.get_app_config("realtime_runs").get_models())
    assert {rule.name for model in models for rule in model._meta.constraints} == {name for name, _ in VIOLATIONS}


@pytest.mark.parametrize("field", ["version", "attempt", "depth", "max_attempts"])
def test_numbers_of_a_run_are_not_negative(many_runs, field):
    with pytest.raises(IntegrityError, match=field), transaction.atomic():
        Run.objects.create(**QUEUED, **{field: -1})


@pytest.mark.parametrize(
    "row",
    [
        attempt(run_id="run_gone"),
        RunEvent(run_id="run_gone", status="QUEUED", attempt=0, at=RIGHT_NOW),
        claim(run_id="run_gone"),
        RunTag(run_id="run_gone", tag_id="tag-1"),
        Run(**QUEUED, batch_id="batch_gone"),
    ],
    ids=lambda row: type(row).__name__,
)
def test_nothing_belongs_to_a_run_or_batch_that_is_gone(many_runs, row):
    with pytest.raises(IntegrityError), transaction.atomic():
        row.save(force_insert=True)
        connection.check_constraints()  # else it would be checked at the commit


def test_equal_keys_of_two_tasks_are_two_keys(many_runs):
    claim().save()
    claim(task="another").save()
    assert IdempotencyClaim.objects.filter(key_hash="h").count() == 2
