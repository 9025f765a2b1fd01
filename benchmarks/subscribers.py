"""How soon changes of runs reach subscribers over HTTP, from one server process with the worker inside.

    python benchmarks/subscribers.py [--server uvicorn|daphne] [--how sse|poll] [--subscribers 1000] [--runs 100]
                                     [--changes 10] [--every 1000] [--database-url postgres://…]

The server is a process of its own; all subscribers are connections of this one. Each run changes its metadata every so
many milliseconds. The delay is from the change of the row (the database's clock) until the subscriber has read it.
`poll` asks as the official client does: one request after the other.
"""

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import environment
from django.conf import settings
from django.db import connection
from environment import percentile

from realtime_runs import tasks
from realtime_runs.access.keys import secret_keys

HEADERS = f"Host: 127.0.0.1\r\nAuthorization: Bearer {secret_keys()[0]}\r\n"

delays: list[float] = []  # seconds
errors: list[str] = []
opened = 0


@contextmanager
def server(kind: str) -> Iterator[int]:
    """Its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    if connection.vendor == "sqlite":
        url = f"sqlite:///{connection.settings_dict['NAME']}"
    else:
        url = environment.database_url.rpartition("/")[0] + "/" + connection.settings_dict["NAME"]
    address = {
        "daphne": ["-b", "127.0.0.1", "-p", str(port), "-v", "0"],
        "uvicorn": ["--port", str(port), "--no-access-log", "--log-level", "warning"],
    }
    process = subprocess.Popen(
        [sys.executable, "-m", kind, *address[kind], "project.asgi:application"],
        cwd=environment.ROOT,
        env={**os.environ, "DATABASE_URL": url, "SECRET_KEY": settings.SECRET_KEY},
    )
    try:
        until = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                if time.monotonic() > until or process.poll() is not None:
                    raise SystemExit(f"{kind} does not answer") from None
                time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(20)


async def by_sse(port: int, run_id: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    writer.write(f"GET /realtime/v1/runs/{run_id} HTTP/1.1\r\n{HEADERS}Accept: text/event-stream\r\n\r\n".encode())
    is_first = True
    async for line in reader:
        if line.startswith(b"HTTP/") and b" 200 " not in line:
            raise OSError(line.decode())
        if line.startswith(b"data: "):
            for part in json.loads(line[6:]).get("runs", ()):
                note(part["set"], is_first=is_first)
                is_first = False
        if line.startswith(b"event: end"):
            break
    writer.close()


async def by_poll(port: int, run_id: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    query, is_first = "offset=-1", True
    while True:
        writer.write(f"GET /realtime/v1/runs/{run_id}?{query} HTTP/1.1\r\n{HEADERS}\r\n".encode())
        headers, body = await answer(reader)
        rows = [message["value"] for message in json.loads(body) if "value" in message]
        for row in rows:
            note({**row, "updatedAt": row["updatedAt"] + "Z"}, is_first=is_first)
            is_first = False
        if rows and rows[-1]["completedAt"]:
            break
        query = f"offset={headers['electric-offset']}&handle={headers['electric-handle']}&live=true&cursor="
    writer.close()


async def answer(reader: asyncio.StreamReader) -> tuple[dict[str, str], bytes]:
    status = (await reader.readline()).decode()
    if " 200 " not in status:
        raise OSError(status)
    headers = {}
    while (line := (await reader.readline()).decode().strip()) != "":
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    if "content-length" in headers:
        return headers, await reader.readexactly(int(headers["content-length"]))
    body = b""
    while size := int(await reader.readline(), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readline()
    return headers, body


def note(run: dict[str, str], *, is_first: bool) -> None:
    global opened
    if is_first:
        opened += 1
    else:
        changed_at = datetime.fromisoformat(run["updatedAt"])
        delays.append((datetime.now(UTC) - changed_at).total_seconds())


async def subscribe(how: str, port: int, run_id: str) -> None:
    try:
        await (by_sse if how == "sse" else by_poll)(port, run_id)
    except (OSError, ValueError, asyncio.IncompleteReadError) as error:
        errors.append(repr(error))


async def measure(options: argparse.Namespace, port: int, run_ids: list[str]) -> None:
    started = time.perf_counter()
    subscribers = []
    for number in range(options.subscribers):
        subscribers.append(asyncio.create_task(subscribe(options.how, port, run_ids[number % len(run_ids)])))
        if number % 50 == 49:
            await asyncio.sleep(0.05)
    while opened + len(errors) < options.subscribers:
        await asyncio.sleep(0.05)
    print(f"opened       {opened:8,}   in {time.perf_counter() - started:.1f} s")
    started = time.perf_counter()
    await asyncio.gather(*subscribers)
    seconds = time.perf_counter() - started
    print(f"deliveries   {len(delays):8,}   ({len(delays) / seconds:,.0f}/s)")
    p50, p95, p99 = (percentile(delays, percent) * 1000 for percent in (50, 95, 99))
    print(f"change to subscriber   p50 {p50:.0f} ms   p95 {p95:.0f} ms   p99 {p99:.0f} ms")
    print(f"errors       {len(errors):8,}   {errors[:1] or ''}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, parents=[environment.parser], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--server", choices=["uvicorn", "daphne"], default="uvicorn")
    parser.add_argument("--how", choices=["sse", "poll"], default="sse")
    parser.add_argument("--subscribers", type=int, default=1000, metavar="N")
    parser.add_argument("--runs", type=int, default=100, metavar="N")
    parser.add_argument("--changes", type=int, default=10, metavar="N", help="of each run")
    parser.add_argument(
        "--every", type=int, default=1000, metavar="MS", help="milliseconds between the changes of a run"
    )
    options = parser.parse_args()
    with environment.database() as database:
        print(
            f"{options.subscribers:,} subscribers ({options.how}) of {options.runs} runs, {options.server}, {database}"
        )
        with server(options.server) as port:
            # Begins when all have had time to subscribe.
            payload = {"items": ["x"] * options.changes, "delayMs": options.every}
            delay = 5 + options.subscribers / 100
            handles = tasks.batch_trigger("progress-task", [payload] * options.runs, delay=delay)
            asyncio.run(measure(options, port, [*handles.run_ids]))
    if errors:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
