"""Wait tokens over HTTP."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

from realtime_runs.client.objects import WaitToken, id_of, time_of
from realtime_runs.client.options import several, wire_value
from realtime_runs.client.pages import CREATED, Page, read_page
from realtime_runs.client.transport import Answer, Transport, run_sync
from realtime_runs.exceptions import AccessDenied, WaitTokenNotFound
from realtime_runs.packets import JSON, NOTHING, Packet, unpack

_URL = "/api/v1/waitpoints/tokens"


def _token(fields: dict[str, Any], *, is_cached: bool = False) -> WaitToken:
    output = NOTHING
    if "output" in fields and not fields.get("outputIsError"):
        output = Packet(fields["output"], fields.get("outputType", JSON))
    return WaitToken(
        id=fields["id"],
        url=fields["url"],
        status=fields["status"],
        tags=tuple(fields["tags"]),
        created_at=datetime.fromisoformat(fields["createdAt"]),
        timeout_at=datetime.fromisoformat(fields["timeoutAt"]),
        completed_at=time_of(fields, "completedAt"),
        idempotency_key=fields.get("idempotencyKey", ""),
        idempotency_key_expires_at=time_of(fields, "idempotencyKeyExpiresAt"),
        output=unpack(output),
        is_cached=is_cached,
    )


class Wait:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create_token(self, **options: Any) -> WaitToken:
        """Make a wait token: `timeout` (default 10 minutes), `tags`, `idempotency_key`, `idempotency_key_ttl`."""
        return run_sync(self.acreate_token(**options))

    async def acreate_token(
        self,
        *,
        timeout: Any = None,
        tags: str | Iterable[str] = (),
        idempotency_key: str = "",
        idempotency_key_ttl: Any = None,
    ) -> WaitToken:
        body = {
            "timeout": wire_value(timeout),
            "tags": several(tags) or None,
            "idempotencyKey": idempotency_key or None,
            "idempotencyKeyTTL": wire_value(idempotency_key_ttl),
        }
        wanted = {name: value for name, value in body.items() if value is not None}
        answer = await self._transport.call("POST", _URL, body=wanted)
        made = await self._call("GET", answer.data["id"])
        return _token(made.data, is_cached=answer.data["isCached"])

    def complete_token(self, token: Any, data: Any = None) -> WaitToken | None:
        """Complete a token with any JSON value, and return it; the first one counts. A public token may not look at it:
        then None. Raises WaitTokenNotFound, NotJson, TooLarge.
        """
        return run_sync(self.acomplete_token(token, data))

    async def acomplete_token(self, token: Any, data: Any = None) -> WaitToken | None:
        token_id = id_of(token)
        await self._call("POST", token_id, "/complete", body={"data": data})
        try:
            return _token((await self._call("GET", token_id, token=self._transport.token)).data)
        except AccessDenied:
            return None

    def retrieve_token(self, token: Any) -> WaitToken:
        """Raises WaitTokenNotFound."""
        return run_sync(self.aretrieve_token(token))

    async def aretrieve_token(self, token: Any) -> WaitToken:
        return _token((await self._call("GET", id_of(token))).data)

    async def _call(self, method: str, token_id: str, end: str = "", **how: Any) -> Answer:
        path = f"{_URL}/{quote(token_id, safe='')}{end}"
        return await self._transport.call(method, path, missing=WaitTokenNotFound(token_id), **how)

    def list_tokens(self, **filters: Any) -> Page[WaitToken]:
        """A page of tokens, newest first: `status`, `tags`, `idempotency_key`, `created_after`, `created_before`,
        `period`, `page_size` (25), `after`, `before`. Iterating it goes on through all later pages.
        """
        return run_sync(self.alist_tokens(**filters))

    async def alist_tokens(self, **filters: Any) -> Page[WaitToken]:
        return await read_page(self._transport, _URL, _FILTERS, _token, filters)


_FILTERS: Final = {
    "status": "filter[status]",
    "tags": "filter[tags]",
    "idempotency_key": "filter[idempotencyKey]",
    **CREATED,
}
