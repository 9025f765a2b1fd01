"""How many chunks a second one process stores and reads, and what a lone append costs.

    python benchmarks/streams.py [--streams 100] [--chunks 200] [--readers 100] [--database-url postgres://…]

Every stream has its own run and its own asyncio task, which awaits each append before the next; `piped` hands the same
chunks over without waiting for each. Readers are `async for` loops on the same event loop, spread evenly over the
streams. A chunk is the time at which it was appended.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import environment
from environment import Taken, percentile, stopwatch

from realtime_runs import streams
from realtime_runs.tasks import task

LONE_APPENDS = 300  # one after the other, while nobody else writes
PER_LINE = 20  # streams whose end is shown together

log = streams.define("log", float)

Write = Callable[[str, int], Awaitable[None]]


@task(id="benchmark-streams")
async def nothing(payload: int) -> None:
    """Its runs are only there to have streams."""


def new_runs(count: int) -> tuple[str, ...]:
    """That nobody executes within the hour."""
    return nothing.batch_trigger(range(count), delay="1h").run_ids


async def one_at_a_time(run_id: str, count: int) -> None:
    for _ in range(count):
        await log.aappend(time.perf_counter(), target=run_id)


async def piped(run_id: str, count: int) -> None:
    async with log.writer(target=run_id) as writer:
        for _ in range(count):
            await writer.awrite(time.perf_counter())


async def read(run_id: str, delays: list[float]) -> None:
    async for appended_at in log.read(run_id):
        assert isinstance(appended_at, float)  # noqa: S101 no stream restarts here
        delays.append(time.perf_counter() - appended_at)


async def write_all(write: Write, run_ids: Sequence[str], count: int) -> Taken:
    left = len(run_ids)

    async def write_one(run_id: str) -> None:
        nonlocal left
        await write(run_id, count)
        left -= 1
        if left % PER_LINE == 0:
            print(f"\r{left:4} streams left ", end="", file=sys.stderr, flush=True)

    with stopwatch() as taken:
        await asyncio.gather(*map(write_one, run_ids))
    print("\r" + " " * 20 + "\r", end="", file=sys.stderr, flush=True)
    return taken


async def measure_writing(name: str, write: Write, run_ids: Sequence[str], count: int) -> None:
    report(name, "chunks", count * len(run_ids), await write_all(write, run_ids, count))


async def measure_reading(run_ids: Sequence[str], count: int, reader_count: int) -> None:
    delays: list[float] = []
    readers = [asyncio.create_task(read(run_ids[n % len(run_ids)], delays)) for n in range(reader_count)]
    with stopwatch() as taken:
        await write_all(one_at_a_time, run_ids, count)
        await asyncio.gather(*(log.aclose(target=run_id) for run_id in run_ids))
        await asyncio.gather(*readers)
    report("read meanwhile", "deliveries", len(delays), taken)
    report_delays("append to reader", delays)
    again: list[float] = []
    with stopwatch() as taken:
        await asyncio.gather(*(read(run_id, again) for run_id in run_ids))
    report("read afterwards", "chunks", len(again), taken)


def measure_lone_appends(run_id: str) -> None:
    delays = []
    for _ in range(LONE_APPENDS):
        started = time.perf_counter()
        log.append(started, target=run_id)
        delays.append(time.perf_counter() - started)
    report_delays("lone append", delays[10:])


def report(name: str, unit: str, count: int, taken: Taken) -> None:
    cpu = taken.cpu_seconds * 1_000_000 / count
    rate = f"{count / taken.seconds:9,.0f} {unit}/s"
    print(f"{name:<18}{rate:<22}{count:10,} in {taken.seconds:6.2f} s   {cpu:6.0f} µs CPU each")


def report_delays(name: str, delays: Sequence[Any]) -> None:
    p50, p95 = percentile(delays, 50) * 1000, percentile(delays, 95) * 1000
    print(f"{name:<18}p50 {p50:8.2f} ms   p95 {p95:8.2f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, parents=[environment.parser], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=100, metavar="N", help="default: 100")
    parser.add_argument("--chunks", type=int, default=200, metavar="N", help="of each stream (default: 200)")
    parser.add_argument("--readers", type=int, default=100, metavar="N", help="default: 100")
    options = parser.parse_args()
    with environment.database() as database:
        print(f"{options.streams:,} streams of {options.chunks:,} chunks, {options.readers:,} readers, {database}")
        measure_lone_appends(new_runs(1)[0])
        asyncio.run(measure_writing("one at a time", one_at_a_time, new_runs(options.streams), options.chunks))
        asyncio.run(measure_writing("piped", piped, new_runs(options.streams), options.chunks))
        asyncio.run(measure_reading(new_runs(options.streams), options.chunks, options.readers))


if __name__ == "__main__":
    main()
