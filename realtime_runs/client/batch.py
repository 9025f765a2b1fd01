"""Batches over HTTP."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

from realtime_runs.client.objects import BatchHandle, BatchState, id_of
from realtime_runs.client.options import json_text, wire_options
from realtime_runs.client.transport import Transport, run_sync
from realtime_runs.exceptions import BatchNotFound, InvalidInput


async def trigger_batch(transport: Transport, items: Iterable[Mapping[str, Any]]) -> BatchHandle:
    """In two phases (wire-protocol 4.2, 4.3): both may be repeated, and make one set of runs."""
    lines, tasks = [], set()
    for index, item in enumerate(items):
        if not isinstance(item, Mapping) or "task" not in item or item.keys() - {"task", "payload", "options"}:
            raise InvalidInput(
                f"Item {index} of the batch must be a dict with `task` and, if needed, `payload` and `options`."
            )
        line = {"index": index, "task": item["task"]} | wire_options(item.get("options", {}), item.get("payload"))
        lines.append(json_text(line, f"Item {index}"))
        tasks.add(item["task"])
    if not lines:
        raise InvalidInput("A batch needs at least one item.")
    wish = {"runCount": len(lines), "taskIdentifiers": sorted(tasks)}
    begun = await transport.call("POST", "/api/v3/batches", body=wish)
    batch_id, token = begun.data["id"], begun.headers.get("x-trigger-jwt", "")
    await transport.call(
        "POST",
        f"/api/v3/batches/{batch_id}/items",
        content=("\n".join(lines) + "\n").encode(),
        headers={"Content-Type": "application/x-ndjson"},
    )
    # Who may trigger need not be one who may read; the new token is.
    made = await transport.call("GET", f"/api/v2/batches/{batch_id}", token=token)
    return BatchHandle(batch_id, tuple(made.data["runs"]), token)


class Batches:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def trigger(self, items: Iterable[Mapping[str, Any]]) -> BatchHandle:
        """Create all runs, at most 1,000, or none. An item: a dict of `task`, its id, `payload`, `options`. Raises
        BatchItemInvalid for a bad one.
        """
        return run_sync(self.atrigger(items))

    async def atrigger(self, items: Iterable[Mapping[str, Any]]) -> BatchHandle:
        return await trigger_batch(self._transport, items)

    def retrieve(self, batch: Any) -> BatchState:
        """Raises BatchNotFound."""
        return run_sync(self.aretrieve(batch))

    async def aretrieve(self, batch: Any) -> BatchState:
        batch_id = id_of(batch)
        answer = await self._transport.call(
            "GET", f"/api/v2/batches/{quote(batch_id, safe='')}", missing=BatchNotFound(batch_id)
        )
        found = answer.data
        return BatchState(
            id=found["id"],
            created_at=datetime.fromisoformat(found["createdAt"]),
            updated_at=datetime.fromisoformat(found["updatedAt"]),
            run_count=found["runCount"],
            run_ids=tuple(found["runs"]),
            is_open=found["status"] == "PENDING",
            is_completed=found["status"] == "COMPLETED",
            idempotency_key=found.get("idempotencyKey", ""),
        )
