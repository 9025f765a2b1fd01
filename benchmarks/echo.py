"""How many runs a second go through one process: trigger, execute, follow to the end.

    python benchmarks/echo.py [--runs 1000] [--how trigger|batch] [--database-url postgres://…]

The task is async and gives its payload back. The worker is the embedded one, in this process; who triggers and who
follows are in it too, so everything competes with everything.
"""

import argparse
import time
from collections.abc import Callable, Iterable

import environment
from environment import percentile, stopwatch

from realtime_runs import runs
from realtime_runs.engine.backends.base import get_backend
from realtime_runs.live import bell
from realtime_runs.runs import Subscription
from realtime_runs.tasks import current_run, task

IDLE_RUNS = 100  # one after the other, to see how soon an idle worker starts

committed_at: dict[str, float] = {}
started_at: dict[str, float] = {}


@task(id="benchmark-echo", max_attempts=1)
async def echo(payload: int) -> int:
    started_at[current_run().run.id] = time.perf_counter()
    return payload


def note_commit(bells: bell.Bells) -> None:
    """The first bell of a run is rung when its trigger has been committed."""
    now = time.perf_counter()
    for topic in bells:
        if topic.kind == "run":
            committed_at.setdefault(topic.name, now)


def trigger(count: int, tag: str) -> Subscription:
    for number in range(count):
        echo.trigger(number, tags=tag)
    return runs.subscribe_to_runs_with_tag(tag)


def trigger_batch(count: int, tag: str) -> Subscription:
    return runs.subscribe_to_batch(echo.batch_trigger(range(count), tags=tag))


TRIGGERS = {"trigger": trigger, "batch": trigger_batch}


def follow_all(subscription: Subscription, count: int) -> list[str]:
    """Until all runs are final. Their ids."""
    final: set[str] = set()
    for run in subscription:
        if run.is_completed:
            if not run.is_success:
                raise SystemExit(f"{run.id} is {run.status}: {run.error}")
            final.add(run.id)
            if len(final) == count:
                break
    return list(final)


def one_by_one(count: int) -> list[str]:
    """Trigger when the one before is over, so that the worker has nothing else to do."""
    ids = []
    for number in range(count):
        handle = echo.trigger(number)
        ids.append(handle.id)
        for _ in runs.subscribe_to_run(handle):
            pass
    return ids


def start_delays(run_ids: Iterable[str]) -> list[float]:
    return [started_at[run_id] - committed_at[run_id] for run_id in run_ids]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, parents=[environment.parser], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1000, metavar="N", help="default: 1000")
    parser.add_argument("--how", choices=TRIGGERS, default="trigger", help="a commit for each run, or one for all")
    options = parser.parse_args()
    environment.use(MAX_BATCH_ITEMS=options.runs, FEED_MAX_RUNS=options.runs)
    with environment.database() as database:
        print(f"{options.runs:,} runs by {options.how}, {database}")
        measure(TRIGGERS[options.how], options.runs)


def measure(trigger_them: Callable[[int, str], Subscription], count: int) -> None:
    bell.connect(note_commit)
    backend = get_backend()
    backend.start()
    one_by_one(10)  # threads, connections and imports that only the first runs pay for
    idle = start_delays(one_by_one(IDLE_RUNS))
    with stopwatch() as end_to_end:
        ids = follow_all(trigger_them(count, "together"), count)
    loaded = start_delays(ids)
    backend.stop()

    with stopwatch() as triggering:
        subscription = trigger_them(count, "apart")
    with stopwatch() as executing:
        backend.start()
        follow_all(subscription, count)
    backend.stop()

    for name, taken in ("end to end", end_to_end), ("trigger only", triggering), ("execute only", executing):
        cpu = taken.cpu_seconds * 1000 / count
        print(f"{name:<14}{count / taken.seconds:8,.0f} runs/s   {taken.seconds:6.2f} s   {cpu:5.2f} ms CPU a run")
    for name, delays in ("idle", idle), ("loaded", loaded):
        p50, p95 = percentile(delays, 50) * 1000, percentile(delays, 95) * 1000
        print(f"commit to start, {name:<8} p50 {p50:8.1f} ms   p95 {p95:8.1f} ms")


if __name__ == "__main__":
    main()
