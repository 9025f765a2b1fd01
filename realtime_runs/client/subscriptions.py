"""Following runs by Server-Sent Events (live-protocol 2)."""

import json
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from realtime_runs.client.following import Following, Signal, events
from realtime_runs.client.objects import Run, run_of
from realtime_runs.client.transport import Transport

if TYPE_CHECKING:
    from realtime_runs.client.with_streams import StreamSubscription

_MAY_BE_NULL: Final = ("payload", "output")
_MOST_HELD: Final = 20_000  # a server remembers of 10,000 runs what it has sent; others it sends whole again


class HeldRuns:
    """What the frames have said so far (live-protocol 1): who holds version m ignores what has v ≤ m."""

    def __init__(self) -> None:
        self._fields: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def take(self, frame: Mapping[str, Any]) -> list[Run]:
        if frame.get("reset"):
            self._fields.clear()
        new = []
        for part in frame["runs"]:
            held = self._fields.pop(part["run"], {})
            if part["v"] > held.get("v", 0):
                merged = {**held, **part["set"], "v": part["v"]}
                held = {name: value for name, value in merged.items() if value is not None or name in _MAY_BE_NULL}
                new.append(run_of(held))
            self._fields[part["run"]] = held
        while len(self._fields) > _MOST_HELD:
            self._fields.popitem(last=False)
        return new


class Subscription(Following[Run]):
    """Snapshots of one or more runs, as they change. A connection that is lost is made anew, and nothing is missed."""

    def __init__(self, transport: Transport, path: str, missing: Exception, signal: Signal | None) -> None:
        super().__init__(signal)
        self._transport = transport
        self._path = path
        self._missing = missing

    async def _pages(self) -> AsyncGenerator[list[Run], None]:
        held, position = HeldRuns(), ""

        def headers() -> dict[str, str]:
            return {"Last-Event-ID": position} if position else {}

        async with aclosing(events(self._transport, self._path, headers, self._missing)) as coming:
            async for event in coming:
                if event is None:
                    continue
                if event.event == "runs":
                    yield held.take(json.loads(event.data))
                    position = event.id
                elif event.event == "end" and json.loads(event.data)["reason"] != "auth":
                    return

    def with_streams(self, *streams: str) -> "StreamSubscription":
        """The same with the chunks of the runs' streams among them: `RunUpdate` and `StreamChunk`.

        `streams`: keys; none: all streams, also those that begin later. Ends when the subscription ends and all that
        was written was given.
        """
        from realtime_runs.client.with_streams import StreamSubscription  # which reads subscriptions

        return StreamSubscription(self, self._transport, streams, self._signal)


class BatchSubscription(Subscription):
    """With `stops` it ends when all runs of the batch are final."""

    def __init__(
        self, transport: Transport, batch_id: str, missing: Exception, signal: Signal | None, *, stops: bool
    ) -> None:
        super().__init__(transport, f"/realtime/v1/batches/{quote(batch_id, safe='')}", missing, signal)
        self._batch_path = f"/api/v2/batches/{quote(batch_id, safe='')}"
        self._ends = stops

    async def _pages(self) -> AsyncGenerator[list[Run], None]:
        final: set[str] = set()
        run_count: int | None = None
        async with aclosing(super()._pages()) as pages:
            async for page in pages:
                yield page
                if self._ends:
                    if run_count is None:  # not before: the subscription is refused first
                        run_count = await self._count()
                    final.update(run.id for run in page if run.is_completed)
                    if len(final) >= run_count:
                        return

    async def _count(self) -> int:
        answer = await self._transport.call("GET", self._batch_path, missing=self._missing)
        count: int = answer.data["runCount"]
        return count
