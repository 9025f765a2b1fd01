"""Wait tokens over HTTP."""

import json
from collections.abc import Iterable
from typing import Any

from realtime_runs.client.objects import Page, WaitToken, id_of, time_of
from realtime_runs.client.options import wire_value
from realtime_runs.client.transport import Transport, run_sync
from realtime_runs.exceptions import WaitTokenNotFound

_URL = "/api/v1/waitpoints/tokens"


def _token(fields: dict[str, Any], *, is_cached: bool = False) -> WaitToken:
    output = fields.get("output") if not fields.get("outputIsError") else None
    return WaitToken(
        id=fields["id"],
        url=fields["url"],
        status=fields.get("status", "WAITING"),
        tags=tuple(fields.get("tags", ())),
        created_at=time_of(fields, "createdAt"),
        timeout_at=time_of(fields, "timeoutAt"),
        completed_at=time_of(fields, "completedAt"),
        idempotency_key=fields.get("idempotencyKey", ""),
        output=None if output is None else json.loads(output),
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
            "tags": tags if isinstance(tags, str) else list(tags),
            "idempotencyKey": idempotency_key,
            "idempotencyKeyTTL": wire_value(idempotency_key_ttl),
        }
        wanted = {name: value for name, value in body.items() if value}
        answer = await self._transport.call("POST", _URL, body=wanted)
        return _token(await self._fields(answer.data["id"]), is_cached=answer.data["isCached"])

    def complete_token(self, token: Any, data: Any = None) -> WaitToken:
        """Complete a token with any JSON value; the first one counts. Raises WaitTokenNotFound."""
        return run_sync(self.acomplete_token(token, data))

    async def acomplete_token(self, token: Any, data: Any = None) -> WaitToken:
        token_id = id_of(token)
        path = f"{_URL}/{token_id}/complete"
        await self._transport.call("POST", path, body={"data": data}, missing=WaitTokenNotFound(token_id))
        return await self.aretrieve_token(token_id)

    def retrieve_token(self, token: Any) -> WaitToken:
        """Raises WaitTokenNotFound."""
        return run_sync(self.aretrieve_token(token))

    async def aretrieve_token(self, token: Any) -> WaitToken:
        return _token(await self._fields(id_of(token)))

    async def _fields(self, token_id: str) -> dict[str, Any]:
        answer = await self._transport.call("GET", f"{_URL}/{token_id}", missing=WaitTokenNotFound(token_id))
        fields: dict[str, Any] = answer.data
        return fields

    def list_tokens(self, **filters: Any) -> Page[WaitToken]:
        """A page of tokens, newest first: `status`, `tags`, `idempotency_key`, `page_size`, `after`, `before`."""
        return run_sync(self.alist_tokens(**filters))

    async def alist_tokens(
        self,
        *,
        status: str | Iterable[str] | None = None,
        tags: str | Iterable[str] | None = None,
        idempotency_key: str | None = None,
        page_size: int = 25,
        after: str | None = None,
        before: str | None = None,
    ) -> Page[WaitToken]:
        filters: dict[str, Any] = {
            "status": status,
            "tags": tags,
            "idempotency_key": idempotency_key,
            "page_size": page_size,
        }
        params = {
            "filter[status]": _joined(status),
            "filter[tags]": _joined(tags),
            "filter[idempotencyKey]": idempotency_key,
            "page[size]": page_size,
            "page[after]": after,
            "page[before]": before,
        }
        wanted = {name: value for name, value in params.items() if value is not None}
        found = (await self._transport.call("GET", _URL, params=wanted)).data
        return Page(
            data=[_token(fields) for fields in found["data"]],
            next=found["pagination"].get("next"),
            previous=found["pagination"].get("previous"),
            _turn=lambda cursor: self.alist_tokens(**filters, page_size=page_size, after=cursor),
        )


def _joined(values: str | Iterable[str] | None) -> str | None:
    return values if values is None or isinstance(values, str) else ",".join(values)
