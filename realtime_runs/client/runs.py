"""Runs over HTTP: looking at them, following them, and changing their course."""

import asyncio
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Unpack
from urllib.parse import quote

from realtime_runs.client.following import Signal
from realtime_runs.client.objects import Run, RunHandle, id_of, run_of
from realtime_runs.client.options import json_text, several, whole_seconds, wire_options, wire_value
from realtime_runs.client.pages import CREATED, Page, read_page
from realtime_runs.client.subscriptions import BatchSubscription, Subscription
from realtime_runs.client.transport import Transport, run_sync
from realtime_runs.durations import Duration, parse_duration
from realtime_runs.exceptions import BatchNotFound, InvalidOption, PollTimeout, RunNotFound

if TYPE_CHECKING:  # needs a Django project
    from realtime_runs.runs import ReplayOptions


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

    async def alist(self, **filters: Any) -> Page[Run]:
        return await read_page(self._transport, "/api/v1/runs", _FILTERS, run_of, filters)

    def poll(self, run: Any, *, interval: Duration = 1.0, timeout: Duration | None = None) -> Run:
        """Look every `interval` seconds until the run is final. Raises RunNotFound, or PollTimeout."""
        return run_sync(self.apoll(run, interval=interval, timeout=timeout))

    async def apoll(self, run: Any, *, interval: Duration = 1.0, timeout: Duration | None = None) -> Run:
        pause = max(parse_duration(interval, "interval").total_seconds(), 0.01)
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
        return Subscription(self._transport, f"/realtime/v1/runs/{quote(run_id, safe='')}", RunNotFound(run_id), signal)

    def subscribe_to_runs_with_tag(
        self, tag: str | Iterable[str], *, signal: Signal | None = None, look_back: Duration | None = None
    ) -> Subscription:
        """Follow the runs that carry the tag, or all of several tags, which have no commas. It never ends by itself."""
        tags = several(tag)
        if not tags or not all(one.strip() and "," not in one for one in tags):
            raise InvalidOption("Which tag? An empty one follows nothing, and one with a comma cannot be asked for.")
        path = f"/realtime/v1/runs?tags={quote(','.join(tags), safe='')}"
        if look_back is not None:
            path += f"&createdAt={whole_seconds(look_back, 'look_back')}"
        return Subscription(self._transport, path, RunNotFound(",".join(tags)), signal)

    def subscribe_to_batch(
        self, batch: Any, *, signal: Signal | None = None, stop_on_completion: bool = False
    ) -> Subscription:
        """Follow the runs of a batch. Ends only with `stop_on_completion`, when all are final. The loop raises
        BatchNotFound.
        """
        batch_id = id_of(batch)
        return BatchSubscription(self._transport, batch_id, BatchNotFound(batch_id), signal, stops=stop_on_completion)

    # -- changing -----------------------------------------------------------------------------------------------------

    def cancel(self, run: Any) -> Run:
        """Cancel a run and its children, and return it, for which the token must be good, too. A final run comes back
        unchanged. Raises RunNotFound.
        """
        return run_sync(self.acancel(run))

    async def acancel(self, run: Any) -> Run:
        await self._call("POST", 2, run, "/cancel")
        return await self.aretrieve(run)

    def replay(self, run: Any, **overrides: "Unpack[ReplayOptions]") -> RunHandle:
        """Trigger a new run like this one; `payload` and options replace what it had. Raises RunNotFound."""
        return run_sync(self.areplay(run, **overrides))

    async def areplay(self, run: Any, **overrides: "Unpack[ReplayOptions]") -> RunHandle:
        given: dict[str, Any] = {**overrides}
        body = {"payload": json_text(given.pop("payload"), "payload")} if "payload" in given else {}
        body |= wire_options(given)["options"]
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
        await self._call("POST", 1, run, "/tags", {"tags": several(tags)})
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
    **CREATED,
}
