"""How soon a reader of a very long stream has its first chunk, from any index, and what memory reading it all takes.

    python benchmarks/read_streams.py [--chunks 1000000] [--bytes 100] [--database-url postgres://…]

The stream is piped into one run; a chunk is a text of so many bytes. Memory is what Python had allocated at most while
it was read, counted in a second reading, since counting makes it several times as slow.
"""

import argparse
import random
import sys
import time
import tracemalloc

import environment
from environment import percentile, stopwatch

from realtime_runs import streams
from realtime_runs.tasks import task

STARTS = 50  # random indexes from which a reader begins
FEW = 100_000  # chunks after which memory is looked at for the first time

log = streams.define("log", str)


@task(id="benchmark-read-streams")
async def nothing(payload: None) -> None:
    """Its run is only there to have a stream."""


def fill(run_id: str, count: int, size: int) -> None:
    with stopwatch() as taken, log.writer(target=run_id) as writer:
        for number in range(count):
            writer.write(str(number).ljust(size))
            if number % 10_000 == 0:
                print(f"\r{number:12,} chunks written ", end="", file=sys.stderr, flush=True)
    print("\r" + " " * 40 + "\r", end="", file=sys.stderr, flush=True)
    log.close(target=run_id)
    report("write", f"{count:,} in {taken.seconds:.1f} s, {count / taken.seconds:,.0f} chunks/s")


def measure_starts(run_id: str, count: int) -> None:
    delays = []
    for index in random.Random(1).sample(range(count), min(STARTS, count)):
        started = time.perf_counter()
        for record in log.read(run_id, start_index=index).records():
            assert record.index == index  # noqa: S101
            break
        delays.append((time.perf_counter() - started) * 1000)
    report("first chunk", f"p50 {percentile(delays, 50):.1f} ms   max {max(delays):.1f} ms, from {len(delays)} indexes")


def measure_reading(run_id: str, count: int) -> None:
    with stopwatch() as taken:
        found = sum(1 for _ in log.read(run_id))
    assert found == count  # noqa: S101
    report("read all", f"{count:,} in {taken.seconds:.1f} s, {count / taken.seconds:,.0f} chunks/s")


def measure_memory(run_id: str, count: int) -> None:
    tracemalloc.start()
    for number, _ in enumerate(log.read(run_id), 1):
        if number in (FEW, count):
            peak = tracemalloc.get_traced_memory()[1] / 1024 / 1024
            report("peak memory", f"{peak:.2f} MiB after {number:,} chunks")
    tracemalloc.stop()


def report(name: str, text: str) -> None:
    print(f"{name:<14}{text}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, parents=[environment.parser], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--chunks", type=int, default=1_000_000, metavar="N", help="default: 1000000")
    parser.add_argument("--bytes", type=int, default=100, metavar="N", help="of a chunk (default: 100)")
    options = parser.parse_args()
    with environment.database() as database:
        print(f"One stream of {options.chunks:,} chunks of {options.bytes} bytes, {database}", flush=True)
        run_id = nothing.trigger(None, delay="1h").id
        fill(run_id, options.chunks, options.bytes)
        measure_starts(run_id, options.chunks)
        measure_reading(run_id, options.chunks)
        measure_memory(run_id, options.chunks)


if __name__ == "__main__":
    main()
