"""`/realtime/v1/streams/{run}/input/{key}`: what is sent to a run (wire-protocol 9)."""

import asyncio
from dataclasses import replace
from typing import ClassVar, Final

from realtime_runs import streams
from realtime_runs.access import rules
from realtime_runs.conf import app_settings
from realtime_runs.exceptions import InvalidInput, RunNotFound
from realtime_runs.models.stream import INPUT
from realtime_runs.wire.body import parse_object
from realtime_runs.wire.errors import Refusal
from realtime_runs.wire.realtime.lookup import find_run
from realtime_runs.wire.realtime.stream_read import StreamConsumer

_LARGE: Final = 64 * 1024  # bytes; what takes longer to parse must not keep the event loop


class InputConsumer(StreamConsumer):
    kind: ClassVar[str] = INPUT

    async def post(self) -> None:
        await self.authenticate()
        name = self.stream_name()
        run = await find_run(name.run_id)
        await self.check(rules.send_input(name.run_id, run))
        if run is None:
            raise RunNotFound(name.run_id)
        sent = await self.read_body(app_settings.MAX_INPUT_BYTES)
        record = await asyncio.to_thread(parse_object, sent) if len(sent) > _LARGE else parse_object(sent)
        if "data" not in record:
            raise InvalidInput("The body must have `data`")
        await streams.input(name.key).asend(name.run_id, record["data"])
        await self.send_json({"ok": True})

    async def send_refusal(self, refused: Refusal) -> None:
        if self.scope["method"] == "POST":
            refused = replace(refused, body={"ok": False, **refused.body})
        await super().send_refusal(refused)
