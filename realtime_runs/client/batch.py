"""Batches over HTTP."""

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from realtime_runs.client.objects import BatchHandle, BatchState, id_of
from realtime_runs.client.options import wire_options
from realtime_runs.client.transport import Transport, run_sync
from realtime_runs.exceptions import BatchNotFound, InvalidInput


async def trigger_batch(transport: Transport, items: Iterable[Mapping[str, Any]]) -> BatchHandle:
    """In two phases (wire-protocol 4.2, 4.3): both may be repeated, and make one set of runs."""
    lines, tasks = [], set()
    for index, item in enumerate(items):
        options = wire_options(item.get("options", {}))
        line: dict[str, Any] = {"index": index, "task": item["task"], "options": options}
        if (payload := item.get("payload")) is not None:
            line["payload"] = payload
            if isinstance(payload, str):
                options["payloadType"] = "text/plain"
        lines.append(json.dumps(line, allow_nan=False))
        tasks.add(item["task"])
    if not lines:
        raise InvalidInput("A batch needs at least one item.")
    begun = await transport.call(
        "POST", "/api/v3/batches", body={"runCount": len(lines), "taskIdentifiers": sorted(tasks)}
    )
    batch_id = begun.data["id"]
    content = ("\n".join(lines) + "\n").encode()
    headers = {"Content-Type": "application/x-ndjson"}
    await transport.call("POST", f"/api/v3/batches/{batch_id}/items", content=content, headers=headers)
    made = await transport.call("GET", f"/api/v2/batches/{batch_id}")
    return BatchHandle(batch_id, tuple(made.data["runs"]), begun.headers.get("x-trigger-jwt", ""))


class Batches:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def trigger(self, items: Iterable[Mapping[str, Any]]) -> BatchHandle:
        """Create all runs, at most 1,000, or none. An item: a dict of `task`, its id, `payload`, `options`."""
        return run_sync(self.atrigger(items))

    async def atrigger(self, items: Iterable[Mapping[str, Any]]) -> BatchHandle:
        return await trigger_batch(self._transport, items)

    def retrieve(self, batch: Any) -> BatchState:
        """Raises BatchNotFound."""
        return run_sync(self.aretrieve(batch))

    async def aretrieve(self, batch: Any) -> BatchState:
        batch_id = id_of(batch)
        answer = await self._transport.call("GET", f"/api/v2/batches/{batch_id}", missing=BatchNotFound(batch_id))
        found = answer.data
        return BatchState(
            id=found["id"],
            created_at=datetime.fromisoformat(found["createdAt"]),
            run_count=found["runCount"],
            run_ids=tuple(found["runs"]),
            is_completed=found["status"] == "COMPLETED",
        )
