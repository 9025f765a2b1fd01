"""Runs over HTTP: looking at them, following them, and changing their course."""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import quote

from realtime_runs.client.following import Following, Signal, events
from realtime_runs.client.objects import Page, RunHandle, id_of, run_of
from realtime_runs.client.options import wire_options, wire_value
from realtime_runs.client.streams import RecordReader
from realtime_runs.client.transport import Transport, run_sync
from realtime_runs.durations import Duration, parse_duration
from realtime_runs.exceptions import BatchNotFound, InvalidOption, PollTimeout, RunNotFound
from realtime_runs.live.items import RunUpdate, StreamChunk
from realtime_runs.live.realtime_run import RealtimeRun

Run = RealtimeRun[Any, Any]

_MAY_BE_NULL: Final = ("payload", "output")
_MOST_WAITING: Final = 100  # items of a subscription with streams that its reader has not taken yet


class HeldRuns:
    """What the frames have said so far (live-protocol 1): who holds version m ignores what has v ≤ m."""

    def __init__(self) -> None:
        self._fields: dict[str, dict[str, Any]] = {}

    def take(self, frame: Mapping[str, Any]) -> list[Run]:
        if frame.get("reset"):
            self._fields.clear()
        new = []
        for part in frame["runs"]:
            held = self._fields.get(part["run"], {})
            if part["v"] <= held.get("v", 0):
                continue
            merged = {**held, **part["set"], "v": part["v"]}
            fields = {name: value for name, value in merged.items() if value is not None or name in _MAY_BE_NULL}
            self._fields[part["run"]] = fields
            new.append(run_of(fields))
        return new


class Subscription(Following[Run]):
    """Snapshots of one or more runs, as they change. A connection that is lost is made anew, and nothing is missed."""

    def __init__(self, transport: Transport, path: str, missing: Exception, signal: Signal | None) -> None:
        super().__init__(signal)
        self._transport = transport
        self._path = path
        self._missing = missing

    async def _items(self) -> AsyncGenerator[Run, None]:
        held, position = HeldRuns(), ""

        def headers() -> dict[str, str]:
            return {"Last-Event-ID": position} if position else {}

        async with aclosing(events(self._transport, self._path, headers, self._missing)) as coming:
            async for event in coming:
                if event is None:
                    continue
                if event.event == "runs":
                    for run in held.take(json.loads(event.data)):
                        yield run
                    position = event.id
                elif event.event == "end" and json.loads(event.data)["reason"] != "auth":
                    return

    def with_streams(self, *streams: str) -> "StreamSubscription":
        """The same with the chunks of the runs' streams among them: `RunUpdate` and `StreamChunk`.

        `streams`: keys; none: all streams, also those that begin later. Ends when the subscription ends and all that
        was written was given.
        """
        return StreamSubscription(self, self._transport, streams, self._signal)


class StreamSubscription(Following[Any]):
    """Runs and the chunks of their streams."""

    def __init__(
        self, subscription: Subscription, transport: Transport, keys: tuple[str, ...], signal: Signal | None
    ) -> None:
        super().__init__(signal)
        self._subscription = subscription
        self._transport = transport
        self._keys = keys

    async def _items(self) -> AsyncGenerator[Any, None]:
        queue: asyncio.Queue[Any] = asyncio.Queue(_MOST_WAITING)
        tasks: set[asyncio.Task[None]] = set()
        runs: dict[str, Run] = {}

        async def follow() -> None:
            opened: set[tuple[str, str]] = set()
            async with aclosing(self._subscription._items()) as items:
                async for run in items:
                    runs[run.id] = run
                    await queue.put(RunUpdate(run))
                    for key in run.realtime_streams:
                        if (not self._keys or key in self._keys) and (run.id, key) not in opened:
                            opened.add((run.id, key))
                            begin(read(run.id, key))

        async def read(run_id: str, key: str) -> None:
            reader = RecordReader(self._transport, run_id, key)
            async with aclosing(reader._items()) as records:
                async for record in records:
                    await queue.put(StreamChunk(runs[run_id], key, record.index, record.chunk))

        def begin(work: Any) -> None:
            task = asyncio.ensure_future(work)
            tasks.add(task)
            task.add_done_callback(ended)

        def ended(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            error = None if task.cancelled() else task.exception()
            if error is not None or not tasks:
                last.append(error)
                waker.set()

        last: list[BaseException | None] = []
        waker = asyncio.Event()
        begin(follow())
        try:
            while True:
                while not queue.empty():
                    yield queue.get_nowait()
                if last:
                    if last[0] is not None:
                        raise last[0]
                    return
                getting, waking = asyncio.ensure_future(queue.get()), asyncio.ensure_future(waker.wait())
                try:
                    await asyncio.wait([getting, waking], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    waking.cancel()
                    if not getting.done():
                        getting.cancel()
                if getting.done() and not getting.cancelled():
                    yield getting.result()
        finally:
            for task in [*tasks]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


class Runs:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    # -- looking ------------------------------------------------------------------------------------------------------

    def retrieve(self, run: Any) -> Run:
        """The run as it is now. Raises RunNotFound."""
        return run_sync(self.aretrieve(run))

    async def aretrieve(self, run: Any) -> Run:
        return run_of((await self._call("GET", 3, run, "")).data)

    def list(self, **filters: Any) -> Page[Run]:
        """A page of runs, newest first: `status`, `task`, `tag`, `batch`, `queue`, `is_test`, `created_after`,
        `created_before`, `period`, `page_size` (25), `after`, `before`. Iterating it goes on through all later pages.
        """
        return run_sync(self.alist(**filters))

    async def alist(self, *, page_size: int = 25, after: str = "", before: str = "", **filters: Any) -> Page[Run]:
        if unknown := filters.keys() - _FILTERS.keys():
            raise TypeError(f"list() got an unexpected filter {min(unknown)!r}.")
        params: dict[str, Any] = {"page[size]": page_size}
        params |= {_FILTERS[name]: _text(value) for name, value in filters.items() if value is not None}
        params |= {name: cursor for name, cursor in (("page[after]", after), ("page[before]", before)) if cursor}
        found = (await self._transport.call("GET", "/api/v1/runs", params=params)).data
        return Page(
            data=[run_of(fields) for fields in found["data"]],
            next=found["pagination"].get("next"),
            previous=found["pagination"].get("previous"),
            _turn=lambda cursor: self.alist(page_size=page_size, after=cursor, **filters),
        )

    def poll(self, run: Any, *, interval: Duration = 1.0, timeout: Duration | None = None) -> Run:
        """Look every `interval` seconds until the run is final. Raises RunNotFound, or PollTimeout."""
        return run_sync(self.apoll(run, interval=interval, timeout=timeout))

    async def apoll(self, run: Any, *, interval: Duration = 1.0, timeout: Duration | None = None) -> Run:
        pause = parse_duration(interval, "interval").total_seconds()
        loop = asyncio.get_running_loop()
        until = float("inf") if timeout is None else loop.time() + parse_duration(timeout, "timeout").total_seconds()
        while True:
            found = await self.aretrieve(run)
            if found.is_completed:
                return found
            if loop.time() + pause > until:
                raise PollTimeout(f"Run {found.id} is still {found.status}.")
            await asyncio.sleep(pause)

    # -- following ----------------------------------------------------------------------------------------------------

    def subscribe_to_run(self, run: Any, *, signal: Signal | None = None) -> Subscription:
        """Follow one run: its current state, then each newer one; ends after the final one. The loop raises
        RunNotFound.
        """
        run_id = id_of(run)
        return Subscription(self._transport, f"/realtime/v1/runs/{run_id}", RunNotFound(run_id), signal)

    def subscribe_to_runs_with_tag(
        self, tag: str | Iterable[str], *, signal: Signal | None = None, look_back: Duration | None = None
    ) -> Subscription:
        """Follow the runs that carry the tag, or all of several tags. It never ends by itself."""
        tags = [tag] if isinstance(tag, str) else [*tag]
        if not tags or not all(tags):
            raise InvalidOption("Which tag? An empty one follows nothing.")
        path = f"/realtime/v1/runs?tags={quote(','.join(tags), safe='')}"
        if look_back is not None:
            path += f"&createdAt={round(parse_duration(look_back, 'look_back').total_seconds())}s"
        return Subscription(self._transport, path, RunNotFound(",".join(tags)), signal)

    def subscribe_to_batch(self, batch: Any, *, signal: Signal | None = None) -> Subscription:
        """Follow the runs of a batch. It never ends by itself. The loop raises BatchNotFound."""
        batch_id = id_of(batch)
        return Subscription(self._transport, f"/realtime/v1/batches/{batch_id}", BatchNotFound(batch_id), signal)

    # -- changing -----------------------------------------------------------------------------------------------------

    def cancel(self, run: Any) -> Run:
        """Cancel a run and its children, and return it. A final run comes back unchanged. Raises RunNotFound."""
        return run_sync(self.acancel(run))

    async def acancel(self, run: Any) -> Run:
        await self._call("POST", 2, run, "/cancel")
        return await self.aretrieve(run)

    def replay(self, run: Any, **overrides: Any) -> RunHandle:
        """Trigger a new run like this one; `payload` and options replace what it had. Raises RunNotFound."""
        return run_sync(self.areplay(run, **overrides))

    async def areplay(self, run: Any, **overrides: Any) -> RunHandle:
        body = {name: value for name, value in overrides.items() if name == "payload"}
        body |= wire_options({name: value for name, value in overrides.items() if name != "payload"})
        if isinstance(body.get("payload"), str):
            body["payload"] = json.dumps(body["payload"])
        return RunHandle((await self._call("POST", 1, run, "/replay", body)).data["id"])

    def reschedule(self, run: Any, delay: Duration | datetime) -> Run:
        """Give a DELAYED run another start. Raises InvalidTransition when it is not, RunNotFound, InvalidOption."""
        return run_sync(self.areschedule(run, delay))

    async def areschedule(self, run: Any, delay: Duration | datetime) -> Run:
        return run_of((await self._call("POST", 1, run, "/reschedule", {"delay": wire_value(delay)})).data)

    def add_tags(self, run: Any, tags: str | Iterable[str]) -> Run:
        """Add tags to a run, in any status. Raises RunNotFound, TooLarge, InvalidOption; then none was added."""
        return run_sync(self.aadd_tags(run, tags))

    async def aadd_tags(self, run: Any, tags: str | Iterable[str]) -> Run:
        await self._call("POST", 1, run, "/tags", {"tags": tags if isinstance(tags, str) else [*tags]})
        return await self.aretrieve(run)

    async def _call(self, method: str, version: int, run: Any, end: str, body: Any = None) -> Any:
        run_id = id_of(run)
        path = f"/api/v{version}/runs/{quote(run_id, safe='')}{end}"
        return await self._transport.call(method, path, body=body, missing=RunNotFound(run_id))


_FILTERS: Final = {
    "status": "filter[status]",
    "task": "filter[taskIdentifier]",
    "tag": "filter[tag]",
    "batch": "filter[batch]",
    "queue": "filter[queue]",
    "is_test": "filter[isTest]",
    "created_after": "filter[createdAt][from]",
    "created_before": "filter[createdAt][to]",
    "period": "filter[createdAt][period]",
}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, timedelta | datetime):
        return str(wire_value(value))
    if isinstance(value, str | int | float):
        return str(value)
    return id_of(value) if hasattr(value, "id") else ",".join(value)
