"""Requests: tried again where that helps (wire-protocol 1.5), with a new token where the old one has expired.

Everything is written once, async. Sync callers have it run on an event loop in a thread of its own.
"""

import asyncio
import inspect
import json
import random
import uuid
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import httpx
from django.core.exceptions import SynchronousOnlyOperation

from realtime_runs.client.errors import error_of
from realtime_runs.client.options import json_text
from realtime_runs.exceptions import ConnectionFailed, InvalidOption, InvalidToken
from realtime_runs.live.loop import LoopThread

T = TypeVar("T")

Refresh = Callable[[], "str | Awaitable[str]"]

_ATTEMPTS: Final = 5
_FIRST_PAUSE: Final = 0.5  # seconds; doubled each time
_LONGEST_PAUSE: Final = 10.0
_TRIED_AGAIN: Final = {408, 409, 425, 429}  # and 5xx
_NOT_DONE: Final = {425, 429, 503}  # statuses of requests that the server has not even begun
_NEVER_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)

loop_thread: Final = LoopThread("realtime-runs-client")


def pause(attempt: int) -> float:
    """Seconds before the next attempt, with full jitter, so that not all clients come back at once."""
    return random.uniform(0, min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt))  # noqa: S311


def is_on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def refuse_on_event_loop(what: str, instead: str) -> None:
    """Raise SynchronousOnlyOperation where an event loop runs, which a blocking call would stop."""
    if is_on_event_loop():
        raise SynchronousOnlyOperation(f"{what} blocks; use `{instead}` where an event loop runs.")


def run_sync(coroutine: Coroutine[Any, Any, T], instead: str = "the function that begins with a") -> T:
    """The result of a coroutine, for a caller without an event loop."""
    try:
        refuse_on_event_loop("This", instead)
    except SynchronousOnlyOperation:
        coroutine.close()
        raise
    future = loop_thread.start(coroutine)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


@dataclass(frozen=True, slots=True)
class Answer:
    headers: Mapping[str, str]
    content: bytes

    @property
    def data(self) -> Any:
        return json.loads(self.content)


class _Connections:
    """What belongs to one event loop."""

    def __init__(self, timeout: float) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
        self.pool = httpx.AsyncClient(timeout=timeout, limits=limits)
        self.refreshing = asyncio.Lock()


class Transport:
    def __init__(self, base_url: str, access_token: str, refresh: Refresh | None, timeout: float) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise InvalidOption(f"base_url begins with http:// or https://, not {base_url!r}.")
        self.base_url = base_url.rstrip("/")
        self.token = _checked(access_token)
        self._refresh_token = refresh
        self._timeout = timeout
        self._by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Connections] = weakref.WeakKeyDictionary()

    def _connections(self) -> _Connections:
        loop = asyncio.get_running_loop()
        found = self._by_loop.get(loop)
        if found is None:
            found = self._by_loop[loop] = _Connections(self._timeout)
        return found

    async def aclose(self) -> None:
        found = self._by_loop.pop(asyncio.get_running_loop(), None)
        if found is not None:
            await found.pool.aclose()

    def close(self) -> None:
        run_sync(self.aclose(), "await client.aclose()")

    async def call(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        content: bytes | None = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        missing: Exception | None = None,
        may_repeat: bool = True,
        token: str = "",
    ) -> Answer:
        """One call, whatever it takes. `body`: is sent as JSON. `missing`: what a 404 means here. `may_repeat`: to do
        it twice does no harm; else it is tried again only where the server cannot have done it. `token`: for this call
        alone, and not to be refreshed.

        Raises the domain's errors, InvalidToken, Forbidden, ServerError, or ConnectionFailed.
        """
        more = {"x-trigger-request-idempotency-key": str(uuid.uuid4()), **(headers or {})}
        if body is not None:
            content = json_text(body, "body").encode()
            more.setdefault("Content-Type", "application/json")
        has_refreshed, attempt = bool(token), 0
        while True:
            attempt += 1
            is_last = attempt == _ATTEMPTS
            used = token or self.token
            try:
                response = await self._connections().pool.request(
                    method, self.base_url + path, content=content, params=params, headers=_authorized(used, more)
                )
            except httpx.TransportError as error:
                if is_last or not (may_repeat or isinstance(error, _NEVER_SENT)):
                    raise ConnectionFailed(self.base_url, str(error) or type(error).__name__) from error
                await asyncio.sleep(pause(attempt - 1))
                continue
            if response.is_success:
                return Answer(response.headers, response.content)
            if response.status_code == 401 and not has_refreshed and await self.refresh(used):
                has_refreshed = True
            elif is_last or not is_tried_again(response) or not (may_repeat or response.status_code in _NOT_DONE):
                raise error_of(response.status_code, response.content, missing)
            else:
                await asyncio.sleep(max(pause(attempt - 1), wanted_pause(response)))

    async def refresh(self, refused: str) -> bool:
        """Get a token in the place of this one, if somebody can give one; once for all who were refused with it."""
        if self._refresh_token is None:
            return False
        async with self._connections().refreshing:
            if self.token == refused:
                is_async = inspect.iscoroutinefunction(self._refresh_token)
                # A sync one may well ask another server, and wait for the answer.
                given: Any = self._refresh_token() if is_async else await asyncio.to_thread(self._refresh_token)
                self.token = _checked(await given if inspect.isawaitable(given) else given)
        return True

    @asynccontextmanager
    async def events(self, path: str, token: str, headers: Mapping[str, str]) -> AsyncGenerator[httpx.Response, None]:
        """An answer that goes on, whatever its status. Raises httpx.TransportError."""
        given = _authorized(token, {"Accept": "text/event-stream", **headers})
        # A server that lives sends a comment every 15 s.
        timeout = httpx.Timeout(self._timeout, read=max(self._timeout, 45.0))
        pool = self._connections().pool
        async with pool.stream("GET", self.base_url + path, headers=given, timeout=timeout) as response:
            yield response


def _checked(token: str) -> str:
    """Raises InvalidToken, which does not show it: what sends headers would."""
    if not isinstance(token, str) or not token.isascii() or not token.isprintable() or not token.strip():
        raise InvalidToken("The access token is empty, or has characters that no token has, such as a line break.")
    return token.strip()


def _authorized(token: str, headers: Mapping[str, str]) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", **headers}


def is_tried_again(response: httpx.Response) -> bool:
    wish = response.headers.get("x-should-retry")
    if wish in ("true", "false"):
        return bool(wish == "true")
    return response.status_code in _TRIED_AGAIN or response.status_code >= 500


def wanted_pause(response: httpx.Response) -> float:
    """Seconds that the server asks for, within reason."""
    text = response.headers.get("Retry-After", "")
    return min(float(text), 60.0) if text.isdigit() else 0.0
