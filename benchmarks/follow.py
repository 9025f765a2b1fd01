"""How many changes a second reach their readers in one process, and what that costs the database.

    python benchmarks/follow.py [--readers 500] [--runs 100] [--changes 20] [--database-url postgres://…]

Each run changes its metadata as often as it is written (every 100 ms); the readers are `async for` loops over
`subscribe_to_run` on one event loop, spread evenly over the runs. The embedded worker is in the same process.
"""

import argparse
import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import environment
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.utils import timezone
from environment import Taken, percentile, stopwatch

from realtime_runs import metadata, runs
from realtime_runs.conf import app_settings
from realtime_runs.engine.backends.base import get_backend
from realtime_runs.tasks import task

READER_THREADS = "realtime-runs-read-db"

queries: Counter[str] = Counter()  # by the name of the thread
opened: list[str] = []
deliveries: list[float] = []  # seconds from the change of the row to the reader


@task(id="benchmark-changes", max_attempts=1)
async def change(payload: int) -> None:
    for number in range(payload):
        metadata.set("progress", {"current": number, "total": payload})
        await asyncio.sleep(app_settings.METADATA_FLUSH_SECONDS)


def count_queries(sender: Any, connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    def count(execute: Callable[..., Any], *args: Any) -> Any:
        queries[threading.current_thread().name] += 1
        return execute(*args)

    connection.execute_wrappers.append(count)


async def read(run_id: str) -> int:
    """Follow to the end. The last version, which is 1 + the number of changes."""
    version = 0
    async for run in runs.subscribe_to_run(run_id):
        if version == 0:
            opened.append(run.id)
        else:
            deliveries.append((timezone.now() - run.updated_at).total_seconds())
        version = run.version
    return version


async def follow(run_ids: Sequence[str], count: int) -> None:
    queries.clear()
    with stopwatch() as opening:
        readers = [asyncio.create_task(read(run_ids[number % len(run_ids)])) for number in range(count)]
        while len(opened) < count:
            await asyncio.sleep(0.01)
    print(f"opened       {count:8,}   in {opening.seconds:.2f} s, {queries[READER_THREADS] / count:.1f} queries each")
    queries.clear()
    with stopwatch() as following:
        get_backend().start()
        versions = await asyncio.gather(*readers)
    report([version - 1 for version in versions], len(run_ids), following)


def report(changes_seen: Sequence[int], run_count: int, taken: Taken) -> None:
    """`changes_seen`: for each reader how often its run changed; the first readers have a run each."""
    reads, changes, possible = queries[READER_THREADS], sum(changes_seen[:run_count]), sum(changes_seen)
    seconds, cpu = taken.seconds, taken.cpu_seconds * 1000
    p50, p95 = percentile(deliveries, 50) * 1000, percentile(deliveries, 95) * 1000
    print(f"changes      {changes:8,}   ({changes / seconds:,.0f}/s)")
    print(
        f"deliveries   {len(deliveries):8,}   ({len(deliveries) / seconds:,.0f}/s;"
        f" {len(deliveries) / possible:.0%} of changes x readers, newer ones overtook the rest)"
    )
    print(f"read queries {reads:8,}   ({reads / changes:.3f} a change, {reads / len(deliveries):.4f} a delivery)")
    print(f"CPU          {cpu / changes:8.2f} ms a change with its deliveries")
    print(f"change to reader   p50 {p50:.1f} ms   p95 {p95:.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, parents=[environment.parser], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--readers", type=int, default=500, metavar="N", help="at least one a run (default: 500)")
    parser.add_argument("--runs", type=int, default=100, metavar="N", help="default: 100")
    parser.add_argument("--changes", type=int, default=20, metavar="N", help="of each run (default: 20)")
    options = parser.parse_args()
    connection_created.connect(count_queries)
    with environment.database() as database:
        print(f"{options.readers:,} readers of {options.runs:,} runs, {options.changes} changes each, {database}")
        batch = change.batch_trigger([options.changes] * options.runs)
        asyncio.run(follow(batch.run_ids, options.readers))
        get_backend().stop()


if __name__ == "__main__":
    main()
