"""How soon the pages of the admin answer with very many runs.

    python benchmarks/admin.py [--runs 1000000] [--requests 30] [--database-url postgres://…]

The runs are of the last 30 days, 20 tasks and 10,000 tags, a tenth of them in batches of 100, a fiftieth with an
idempotency key; 94 of 100 are completed, and 20,000 of them were triggered in the last hour. A request is what Django's
test client does: all middleware, the view, its queries, the template.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import environment
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test import Client
from environment import percentile, stopwatch

from realtime_runs.ids import earliest_run_id, new_batch_id
from realtime_runs.live.snapshot import RunError
from realtime_runs.models import Attempt, Batch, Run, RunEvent, RunTag, Tag
from realtime_runs.models.bulk import insert_many

TASKS = [f"task-{number}" for number in range(20)]
TAGS = 10_000
IN_ONE_TAG = 5  # every fifth run has the tag "tenant:0" too
LAST_HOUR = 20_000
MONTH = timedelta(days=30)
PART = 10_000

RUN = (
    *("id", "task", "status", "version", "payload", "payload_type", "output", "output_type", "error", "metadata"),
    *("tag_names", "realtime_streams", "batch_id", "batch_index", "depth", "trigger_function", "is_test"),
    *("idempotency_key", "queue", "concurrency_key", "priority", "max_attempts", "ttl", "attempt", "lease_token"),
    *("lease_until", "created_at", "updated_at", "run_at", "rank", "queued_at", "started_at", "finished_at"),
)
ENDS = ["COMPLETED"] * 94 + ["FAILED"] * 3 + ["CANCELED", "TIMED_OUT", "CRASHED"]
ERROR = RunError(
    "ValueError", "The row has no amount", "Traceback (most recent call last):\n" + "  File …\n" * 20
).to_json()
METADATA = json.dumps({"progress": {"current": 70, "total": 100}, "status": "reading rows", "file": "orders.csv"})


def times(count: int) -> Iterator[datetime]:
    """When each was triggered, oldest first."""
    now = datetime.now(UTC)
    recent = min(LAST_HOUR, count // 2)
    for n in range(count - recent):
        yield now - MONTH + (MONTH - timedelta(hours=1)) * n / max(count - recent, 1)
    for n in range(recent):
        yield now - timedelta(hours=1) * (recent - n) / recent


def fill(count: int) -> None:
    chance = random.Random(1)
    now = datetime.now(UTC)
    insert_many(Tag, ("pk", "created_at"), [(f"tenant:{n}", now) for n in range(TAGS)])
    batch_id = ""
    part: list[dict[str, Any]] = []
    for number, at in enumerate(times(count)):
        if number % 1000 == 0:
            batch_id = new_batch_id()
            insert_many(
                Batch,
                ("pk", "run_count", "created_at", "is_open", "parent_id", "task_ids", "idempotency_key", "key_hash"),
                [(batch_id, 100, at, False, "", [], "", "")],
            )
        part.append(row(chance, number, at, count - number, batch_id if number % 1000 < 100 else None))
        if len(part) == PART or number == count - 1:
            store(part)
            part = []
            print(f"\r{number + 1:12,} runs ", end="", file=sys.stderr, flush=True)
    print("\r" + " " * 40 + "\r", end="", file=sys.stderr, flush=True)
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("VACUUM ANALYZE")  # as its autovacuum does in time


def row(chance: random.Random, number: int, at: datetime, left: int, batch_id: str | None) -> dict[str, Any]:
    # The newest 300 are not over.
    status = chance.choice(ENDS) if left > 300 else "QUEUED" if left > 60 else "WAITING" if left > 50 else "EXECUTING"
    is_over, has_started = left > 300, left > 300 or left <= 60
    started = at + timedelta(seconds=chance.expovariate(2)) if has_started else None
    ended = started + timedelta(seconds=chance.expovariate(0.2)) if is_over and started else None
    failed = status in ("FAILED", "TIMED_OUT", "CRASHED")
    tags = {f"tenant:{chance.randrange(1, TAGS)}"} | ({"tenant:0"} if number % IN_ONE_TAG == 0 else set())
    return {
        "id": earliest_run_id(at) + f"{chance.getrandbits(76):019x}",
        "task": TASKS[int(chance.triangular(0, 20, 3)) % 20],
        "status": status,
        "version": 5,
        "payload": '{"file": "orders.csv"}',
        "payload_type": "application/json",
        "output": '{"rows": 70}' if status == "COMPLETED" else None,
        "output_type": "application/json",
        "error": ERROR if failed else "",
        "metadata": METADATA,
        "tag_names": sorted(tags),
        "realtime_streams": [],
        "batch_id": batch_id,
        "batch_index": number % 1000 if batch_id else None,
        "depth": 0,
        "trigger_function": "trigger",
        "is_test": False,
        "idempotency_key": f"order-{number}" if number % 50 == 0 else "",
        "queue": "default",
        "concurrency_key": "",
        "priority": 0.0,
        "max_attempts": 3,
        "ttl": "",
        "attempt": 1 if has_started else 0,
        "lease_token": "" if is_over or not has_started else "0123456789abcdef",
        "lease_until": None if is_over or not has_started else at + timedelta(days=1),
        "created_at": at,
        "updated_at": ended or at,
        "run_at": at,
        "rank": at,
        "queued_at": at,
        "started_at": started,
        "finished_at": ended,
    }


@transaction.atomic
def store(rows: list[dict[str, Any]]) -> None:
    insert_many(Run, RUN, [tuple(row[name] for name in RUN) for row in rows])
    insert_many(RunTag, ("run", "tag"), [(row["id"], tag) for row in rows for tag in row["tag_names"]])
    steps = [("QUEUED", "queued_at"), ("EXECUTING", "started_at"), (None, "finished_at")]
    events = [
        (row["id"], status or row["status"], row["attempt"] if status != "QUEUED" else 0, row[at])
        for row in rows
        for status, at in steps
        if row[at]
    ]
    insert_many(RunEvent, ("run", "status", "attempt", "at"), events)
    attempts = [
        (row["id"], 1, "host:1", row["started_at"], row["finished_at"], row["error"]) for row in rows if row["attempt"]
    ]
    insert_many(Attempt, ("run", "number", "worker", "started_at", "finished_at", "error"), attempts)


def measure(name: str, request: Callable[[], Any], count: int) -> None:
    request()  # reads templates
    taken = []
    for _ in range(count):
        with stopwatch() as once:
            response = request()
        assert response.status_code == 200, (name, response.status_code)  # noqa: S101
        taken.append(once.seconds * 1000)
        time.sleep(0.01)
    report(
        name, f"p50 {percentile(taken, 50):6.0f} ms   p95 {percentile(taken, 95):6.0f} ms   max {max(taken):6.0f} ms"
    )


def report(name: str, text: str) -> None:
    print(f"{name:<42}{text}", flush=True)


def measure_all(count: int) -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("admin"))
    place = "/admin/realtime_runs/run/"
    some = Run.objects.order_by("-pk").values_list("pk", flat=True)
    total = some.count()
    oldest, middle, newest = some[total - 60], some[total // 2], some[400]
    key = Run.objects.exclude(idempotency_key="").values_list("idempotency_key", flat=True).order_by("-pk")[1]
    batch = Run.objects.filter(batch__isnull=False).values_list("batch", flat=True).order_by("-pk")[0]
    lists = {
        "list": {},
        "list, a page in the middle": {"behind": middle},
        "list, the last page": {"behind": oldest},
        "list, status=COMPLETED": {"status": "COMPLETED"},
        "list, status=FAILED": {"status": "FAILED"},
        "list, status=EXPIRED (there are none)": {"status": "EXPIRED"},
        "list, a task": {"task": "task-3"},
        "list, a task that no run has": {"task": "nothing"},
        "list, a rare tag": {"tag": "tenant:77"},
        "list, a tag of a fifth of all runs": {"tag": "tenant:0"},
        "list, a batch": {"batch": batch},
        **{f"list, created={period}": {"created": period} for period in ("15m", "1h", "1d", "7d")},
        "search, an id": {"q": middle},
        "search, a tag": {"q": "tenant:77"},
        "search, an idempotency key": {"q": key},
        "search, nothing": {"q": "nothing like this"},
    }
    for name, query in lists.items():
        measure(name, lambda query=query: client.get(place, query), count)  # type: ignore[misc]
    measure("counters (asked every 3 s)", lambda: client.get(f"{place}counts/", {"counts": newest}), count)
    measure("page of a run", lambda: client.get(f"{place}{middle}/change/"), count)
    measure("page of a run, renewed", lambda: client.get(f"{place}{middle}/change/", {"part": ""}), count)

    from realtime_runs.admin import overview

    def look() -> Any:
        overview.forget()
        return client.get(f"{place}overview/")

    measure("overview, read anew", look, count)
    measure("overview, shared by several", lambda: client.get(f"{place}overview/"), count)
    measure("batches", lambda: client.get("/admin/realtime_runs/batch/"), count)
    measure("tags", lambda: client.get("/admin/realtime_runs/tag/"), count)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, parents=[environment.parser], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1_000_000, metavar="N", help="default: 1000000")
    parser.add_argument("--requests", type=int, default=30, metavar="N", help="of each page (default: 30)")
    options = parser.parse_args()
    settings.ALLOWED_HOSTS.append("testserver")
    with environment.database() as database:
        print(f"{options.runs:,} runs, {database}", flush=True)
        with stopwatch() as taken:
            fill(options.runs)
        report("fill", f"{taken.seconds:.0f} s")
        measure_all(options.requests)


if __name__ == "__main__":
    main()
