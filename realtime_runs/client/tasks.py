"""Triggering runs over HTTP."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Unpack
from urllib.parse import quote

from realtime_runs.client.batch import trigger_batch
from realtime_runs.client.objects import BatchHandle, RunHandle
from realtime_runs.client.options import wire_options
from realtime_runs.client.transport import Transport, run_sync
from realtime_runs.exceptions import UnknownTask

if TYPE_CHECKING:  # needs a Django project
    from realtime_runs.engine.options import TriggerOptions


class Tasks:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def trigger(self, task_id: str, payload: Any = None, **options: "Unpack[TriggerOptions]") -> RunHandle:
        """Create a run: any JSON value as its payload, and the options of `tasks.trigger`.

        Raises UnknownTask, PayloadInvalid, InvalidInput, InvalidToken, Forbidden, TokenSpent, ConnectionFailed,
        ServerError. A call that is tried again makes no second run.
        """
        return run_sync(self.atrigger(task_id, payload, **options))

    async def atrigger(self, task_id: str, payload: Any = None, **options: "Unpack[TriggerOptions]") -> RunHandle:
        body = wire_options(options, payload)
        path = f"/api/v1/tasks/{quote(task_id, safe='')}/trigger"
        answer = await self._transport.call("POST", path, body=body, missing=UnknownTask(task_id))
        return RunHandle(answer.data["id"], answer.data["isCached"], answer.headers.get("x-trigger-jwt", ""))

    def batch_trigger(self, task_id: str, payloads: Iterable[Any], **options: "Unpack[TriggerOptions]") -> BatchHandle:
        """Create a run for each payload, at most 1,000, all or none, with the same options."""
        return run_sync(self.abatch_trigger(task_id, payloads, **options))

    async def abatch_trigger(
        self, task_id: str, payloads: Iterable[Any], **options: "Unpack[TriggerOptions]"
    ) -> BatchHandle:
        items = [{"task": task_id, "payload": payload, "options": options} for payload in payloads]
        return await trigger_batch(self._transport, items)
