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
from realtime_runs.exceptions import ConnectionFailed, InvalidToken
from realtime_runs.live.loop import LoopThread

T = TypeVar("T")

Refresh = Callable[[], "str | Awaitable[str]"]

_ATTEMPTS: Final = 5
_FIRST_PAUSE: Final = 0.5  # seconds; doubled each time
_LONGEST_PAUSE: Final = 10.0
_TRIED_AGAIN: Final = {408, 409, 425, 429}  # and 5xx

_loop_thread: Final = LoopThread("realtime-runs-client")


def pause(attempt: int) -> float:
    """Seconds before the next attempt, with full jitter, so that not all clients come back at once."""
    return random.uniform(0, min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt))  # noqa: S311


def refuse_on_event_loop(what: str, instead: str) -> None:
    """Raise SynchronousOnlyOperation where an event loop runs, which a blocking call would stop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise SynchronousOnlyOperation(f"{what} blocks; use `{instead}` where an event loop runs.")


def run_sync(coroutine: Coroutine[Any, Any, T], instead: str = "the function that begins with a") -> T:
    """The result of a coroutine, for a caller without an event loop."""
    try:
        refuse_on_event_loop("This", instead)
    except SynchronousOnlyOperation:
        coroutine.close()
        raise
    future = _loop_thread.start(coroutine)
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


class Transport:
    def __init__(self, base_url: str, access_token: str, refresh: Refresh | None, timeout: float) -> None:
        self._base_url = base_url.rstrip("/")
        self._token = access_token
        self._refresh_token = refresh
        self._timeout = timeout
        # Connections belong to an event loop; so each has a pool of its own.
        self._pools: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = (
            weakref.WeakKeyDictionary()
        )

    def _pool(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None or pool.is_closed:
            pool = httpx.AsyncClient(
                timeout=self._timeout, limits=httpx.Limits(max_connections=None, max_keepalive_connections=20)
            )
            self._pools[loop] = pool
        return pool

    async def aclose(self) -> None:
        pool = self._pools.pop(asyncio.get_running_loop(), None)
        if pool is not None:
            await pool.aclose()

    def close(self) -> None:
        run_sync(self.aclose(), "await client.aclose()")

    def _headers(self, more: Mapping[str, str]) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}", **more}

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
    ) -> Answer:
        """One call, whatever it takes. `body`: is sent as JSON. `missing`: what a 404 means here.

        Raises the domain's errors, InvalidToken, Forbidden, ServerError, or ConnectionFailed.
        """
        more = {"x-trigger-request-idempotency-key": str(uuid.uuid4()), **(headers or {})}
        if body is not None:
            content = json.dumps(body, allow_nan=False).encode()
            more.setdefault("Content-Type", "application/json")
        has_refreshed = False
        for attempt in range(_ATTEMPTS):
            try:
                response = await self._pool().request(
                    method, self._base_url + path, content=content, params=params, headers=self._headers(more)
                )
            except httpx.TransportError as error:
                if attempt == _ATTEMPTS - 1:
                    raise ConnectionFailed(self._base_url, str(error) or type(error).__name__) from error
                await asyncio.sleep(pause(attempt))
                continue
            if response.status_code == 401 and not has_refreshed and await self.refresh():
                has_refreshed = True
                continue
            if is_tried_again(response) and attempt < _ATTEMPTS - 1:
                await asyncio.sleep(max(pause(attempt), wanted_pause(response)))
                continue
            if response.is_success:
                return Answer(response.headers, response.content)
            raise error_of(response.status_code, response.content, missing)
        raise InvalidToken("The new access token was refused, too.")

    async def refresh(self) -> bool:
        """Get a new token, if somebody can give one."""
        if self._refresh_token is None:
            return False
        given = self._refresh_token()
        self._token = await given if inspect.isawaitable(given) else given
        return True

    @asynccontextmanager
    async def events(self, path: str, headers: Mapping[str, str]) -> AsyncGenerator[httpx.Response, None]:
        """An answer that goes on, whatever its status. Raises httpx.TransportError."""
        given = self._headers({"Accept": "text/event-stream", **headers})
        # A server that lives sends a comment every 15 s.
        timeout = httpx.Timeout(self._timeout, read=max(self._timeout, 45.0))
        async with self._pool().stream("GET", self._base_url + path, headers=given, timeout=timeout) as response:
            yield response


def is_tried_again(response: httpx.Response) -> bool:
    wish = response.headers.get("x-should-retry")
    if wish in ("true", "false"):
        return bool(wish == "true")
    return response.status_code in _TRIED_AGAIN or response.status_code >= 500


def wanted_pause(response: httpx.Response) -> float:
    """Seconds that the server asks for, within reason."""
    text = response.headers.get("Retry-After", "")
    return min(float(text), 60.0) if text.isdigit() else 0.0
