"""What all consumers of `realtime/` have in common: one request each, whose client may leave at any moment."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable
from typing import Any, ClassVar

from channels.generic.http import AsyncHttpConsumer
from django.http import QueryDict

from realtime_runs.access.principals import Principal, from_header
from realtime_runs.access.rules import Need
from realtime_runs.database import DatabaseThreads
from realtime_runs.wire import body, cors, sessions
from realtime_runs.wire.encoding import dumps
from realtime_runs.wire.errors import BodyTooLarge, Refusal, refusal

Headers = dict[str, str]

# Not the threads of the readers: what is done here may write, so it is not simply done again on a lost connection.
threads = DatabaseThreads("realtime_runs-wire", 4)


class ClientLeft(Exception):
    """Nobody waits for the answer any more."""


class RealtimeConsumer(AsyncHttpConsumer):
    """One request to `realtime/`. Subclasses define `get`, `post`, `put` or `head`, and answer with `send_json` or
    `send_headers` and `send_body`.

    Channels would give a consumer one message at a time, so that one which works is deaf to the client's leaving. This
    one works in a task of its own while it listens, and is cancelled when the client leaves: clean up in `finally`.
    """

    max_body: ClassVar[int] = 64 * 1024
    is_open_to_pages: ClassVar[bool] = True

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scope = scope
        self.base_send = send
        self._receive = receive
        self._is_begun = False
        self.kwargs: dict[str, str] = scope["url_route"]["kwargs"]
        self.headers = {
            name.decode("latin-1").lower(): value.decode("latin-1").strip() for name, value in scope["headers"]
        }
        try:
            self.query = QueryDict(scope.get("query_string", b""), mutable=False)  # refuses a thousand parameters
            await self._answer()
        except ClientLeft:
            return
        except Exception as error:
            refused = refusal(error)
            if self._is_begun:
                # Too late to say it. Raised to Daphne, it would stop that from reaping connections.
                await self.send_body(b"")
            else:
                await self.send_refusal(refused)

    async def _answer(self) -> None:
        method = self.scope["method"].lower()
        if method == "options" and self.is_open_to_pages:
            asked = self.headers.get("access-control-request-headers", "")
            await self.send_headers(status=204, headers=cors.preflight_headers(asked))
            await self.send_body(b"")
            return
        handler = getattr(self, method, None) if method in ("get", "post", "put", "head") else None
        if handler is None:
            allowed = [name.upper() for name in ("get", "post", "put", "head") if hasattr(self, name)]
            await self.send_refusal(Refusal(405, {"error": "Method not allowed"}, {"Allow": ", ".join(allowed)}))
            return
        await handler()

    # -- the request --------------------------------------------------------------------------------------------------

    async def authenticate(self) -> Principal:
        """Who asks. Raises InvalidToken."""
        if "authorization" in self.headers:
            self.principal = from_header(self.headers["authorization"])
        else:
            self.principal = await threads.run(sessions.principal_of_scope, self.scope)
        return self.principal

    async def check(self, need: Need) -> None:
        """Whether it may. Raises Forbidden or KeyNeeded."""
        # Only the policy of a site's user may query the database.
        if self.principal.token is not None:
            self.principal.check(need)
        else:
            await threads.run(self.principal.check, need)

    async def body_parts(self) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises ClientLeft when it breaks off."""
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientLeft
            if part := message.get("body", b""):
                yield part
            if not message.get("more_body", False):
                return

    async def read_body(self, limit: int | None = None) -> bytes:
        """All of it. Raises BodyTooLarge before more than that is held, or ClientLeft."""
        most = self.max_body if limit is None else limit
        body.check_length(self.headers.get("content-length", ""), most)
        parts, size = [], 0
        async for part in self.body_parts():
            size += len(part)
            if size > most:
                raise BodyTooLarge(most)
            parts.append(part)
        return b"".join(parts)

    async def while_connected(self, work: Awaitable[None]) -> None:
        """Do this until it is done or the client leaves. Only after the body was read: it listens for the leaving."""
        working = asyncio.ensure_future(work)
        leaving = asyncio.ensure_future(self._left())
        try:
            await asyncio.wait([working, leaving], return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise ClientLeft
            working.result()
        finally:
            for task in (working, leaving):
                task.cancel()
            await asyncio.gather(working, leaving, return_exceptions=True)

    async def _left(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    # -- the answer ---------------------------------------------------------------------------------------------------

    async def send_headers(self, *, status: int = 200, headers: Headers | Iterable[Any] | None = None) -> None:
        given = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **dict(headers or {})}
        if self.is_open_to_pages:
            given = {**cors.ANSWER_HEADERS, **given}
        self._is_begun = True
        await super().send_headers(
            status=status, headers=[(name.lower().encode(), value.encode()) for name, value in given.items()]
        )

    async def send_json(self, data: Any, *, status: int = 200, headers: Headers | None = None) -> None:
        content = dumps(data)
        await self.send_headers(
            status=status,
            headers={"Content-Type": "application/json", "Content-Length": str(len(content)), **(headers or {})},
        )
        await self.send_body(b"" if self.scope["method"] == "HEAD" else content)

    async def send_refusal(self, refused: Refusal) -> None:
        headers = dict(refused.headers)
        if refused.status == 401:
            headers["WWW-Authenticate"] = 'Bearer realm="realtime_runs"'
        await self.send_json(refused.body, status=refused.status, headers=headers)


class NotFoundConsumer(RealtimeConsumer):
    """Any other path below `realtime/`."""

    async def _answer(self) -> None:
        await self.send_refusal(Refusal(404, {"error": "Not found"}))
