"""Reading a stream over HTTP, as a client does that understands v2 events."""

import json
from collections.abc import Mapping
from typing import Any

from tests.wire.exchange import Exchange, key_header


def records(body: bytes) -> list[dict[str, Any]]:
    """Those of all `batch` events. Any other event fails, but for the end."""
    found = []
    for text in body.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in text.split("\n") if line and not line.startswith(":"))
        if fields and fields != {"event": "end", "data": fields.get("data")}:
            assert fields["event"] == "batch", fields
            found += json.loads(fields["data"])["records"]
    return found


def chunks(records: list[dict[str, Any]]) -> list[tuple[int, Any]]:
    return [(record["seq_num"], json.loads(record["body"])["data"]) for record in records]


class StreamSource(Exchange):
    """`async with StreamSource("/realtime/v1/streams/…") as source: await source.open()`, then its `chunks`."""

    def __init__(self, path: str, headers: Mapping[str, str] | None = None, **more: str) -> None:
        """`more`: headers, with underscores for hyphens. Default: those of a secret key."""
        given = {name.replace("_", "-"): value for name, value in more.items()}
        super().__init__("GET", path, {**(key_header() if headers is None else headers), **given})

    async def open(self) -> "StreamSource":
        assert await self.start() == 200, await self.rest()
        assert self.headers["content-type"] == "text/event-stream"
        assert self.headers["cache-control"].startswith("no-cache")
        assert self.headers["x-stream-version"] == "v2"
        assert self.headers["x-accel-buffering"] == "no"
        assert self.headers["access-control-allow-origin"] == "*"
        assert await self.piece() == b": ok\n\n"
        return self

    async def chunks(self, count: int) -> list[tuple[int, Any]]:
        """At least so many, with their indexes."""
        found: list[tuple[int, Any]] = []
        while len(found) < count:
            assert not self.is_over, f"the stream is over; it brought {found}"
            found += chunks(records(await self.piece()))
        return found

    async def last_chunks(self) -> list[tuple[int, Any]]:
        """Everything until the clean end."""
        return chunks(records(await self.rest()))


async def read(path: str, headers: Mapping[str, str] | None = None, **more: str) -> list[tuple[int, Any]]:
    """All chunks of a stream that ends."""
    async with StreamSource(path, headers, **more) as source:
        await source.open()
        return await source.last_chunks()
