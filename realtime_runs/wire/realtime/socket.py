"""`/realtime/v1/socket`: many subscriptions over one WebSocket (live-protocol 1)."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

from channels.consumer import AsyncConsumer

from realtime_runs.conf import app_settings
from realtime_runs.wire.closing import TOO_MANY, CloseCode, SocketClosed, close_code
from realtime_runs.wire.encoding import dumps
from realtime_runs.wire.packet_urls import PacketUrls
from realtime_runs.wire.realtime.base import ClientLeft
from realtime_runs.wire.realtime.socket_caller import Caller
from realtime_runs.wire.realtime.socket_frames import (
    MOST_BYTES,
    Ack,
    BadFrame,
    Pong,
    Refresh,
    Send,
    Subscribe,
    Unsubscribe,
    UpFrame,
    parse,
)
from realtime_runs.wire.realtime.socket_inputs import Inputs
from realtime_runs.wire.realtime.socket_limits import Flood, UsedIds
from realtime_runs.wire.realtime.socket_outlet import Outlet
from realtime_runs.wire.realtime.socket_subscription import Subscription
from realtime_runs.wire.sessions import handshake_of

SUBPROTOCOL: Final = "realtime-runs.v1"
MOST_SUBSCRIPTIONS: Final = 100

_OPENING_SECONDS: Final = 5  # to find out who it is; a stranger has no socket for longer
_CLOSING_SECONDS: Final = 5  # for a client to take note
_LAST_WORDS_SECONDS: Final = 0.1


class SocketConsumer(AsyncConsumer):
    """One WebSocket. It is accepted first, also when it is refused: of a refused handshake a browser learns nothing."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        # Not that of Channels, which gives out one message at a time, and adds a channel that nobody would write to.
        if (await receive())["type"] != "websocket.connect":
            return
        is_ours = SUBPROTOCOL in scope.get("subprotocols", ())
        try:
            await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL if is_ours else None})
            await Socket(scope, receive, send).serve(is_ours=is_ours)
        except ClientLeft:
            return
        except asyncio.CancelledError:  # Daphne is told to stop, and says nothing to the client
            if not await _close(send, CloseCode.GOING_AWAY):  # nor can it say this code
                await _close(send, CloseCode.OUR_ERROR)
            await asyncio.sleep(_LAST_WORDS_SECONDS)
            raise
        except Exception as error:
            await _close(send, close_code(error))
            await _wait_until_left(receive)


async def _close(send: Any, code: CloseCode) -> bool:
    """False if the server cannot: most often because the client has left."""
    try:
        async with asyncio.timeout(_CLOSING_SECONDS):
            await send({"type": "websocket.close", "code": int(code), "reason": code.reason})
    except Exception:  # each server has its own
        return False
    return True


async def _wait_until_left(receive: Any) -> None:
    """Uvicorn cuts a connection off when its application ends."""
    with suppress(Exception):
        async with asyncio.timeout(_CLOSING_SECONDS):
            while (await receive())["type"] != "websocket.disconnect":
                pass


class Socket:
    """What is known of an open one: who is there, what they follow, and what they may still send."""

    def __init__(self, scope: Any, receive: Any, send: Any) -> None:
        self._scope = scope
        self._receive: Callable[[], Awaitable[dict[str, Any]]] = receive
        self._caller = Caller(scope)
        self._outlet = Outlet(send)
        self._inputs = Inputs(self._caller, self._outlet)
        self._flood = Flood()
        self._used_ids = UsedIds()
        self._subscriptions: dict[int, Subscription] = {}
        self._is_refreshed = asyncio.Event()

    async def serve(self, *, is_ours: bool) -> None:
        """Until the client leaves, or something else ends it. Raises what: see `closing.close_code`."""
        if not is_ours:
            raise SocketClosed(CloseCode.NO_SUBPROTOCOL)
        async with asyncio.timeout(_OPENING_SECONDS):
            await self._caller.authenticate()
        self._urls = PacketUrls(handshake_of(self._scope))
        limits = {"subscriptions": MOST_SUBSCRIPTIONS, "frame": MOST_BYTES}
        await self._outlet.say(dumps({"type": "ready", "ping": app_settings.SOCKET_PING_SECONDS, "limits": limits}))
        works = [self._listen(), self._guard(), self._keep_alive(), self._inputs.run()]
        tasks = [asyncio.ensure_future(work) for work in works]
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        finally:
            tasks += [subscription.task for subscription in self._subscriptions.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # -- up -----------------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        while (message := await self._receive())["type"] == "websocket.receive":
            frame = parse(message)
            if await self._take(frame):
                self._flood.count()

    async def _take(self, frame: UpFrame) -> bool:
        """Do what the frame says. Whether it counts: what only answers us does not. Raises SocketClosed."""
        match frame:
            case Pong():
                return not self._outlet.pong()
            case Ack():
                subscription = self._find(frame.id)
                return subscription is None or not subscription.ack(frame.at)
            case Subscribe():
                await self._subscribe(frame)
            case Unsubscribe():
                if subscription := self._find(frame.id):
                    await subscription.unsubscribe()
            case Send():
                self._used_ids.add(frame.id)
                await self._inputs.put(frame)
            case Refresh():
                await self._caller.refresh(frame.token)
                self._is_refreshed.set()
        return True

    def _find(self, id: int) -> Subscription | None:
        """None when it has ended, which the client may not know yet. Raises BadFrame when there never was one."""
        if id not in self._used_ids:
            raise BadFrame
        return self._subscriptions.get(id)

    async def _subscribe(self, frame: Subscribe) -> None:
        self._used_ids.add(frame.id)
        if len(self._subscriptions) >= MOST_SUBSCRIPTIONS:
            await self._outlet.say(dumps({"type": "error", "id": frame.id, **TOO_MANY.fields}))
            return
        subscription = Subscription(frame, self._caller, self._outlet, self._urls)
        self._subscriptions[frame.id] = subscription
        subscription.task.add_done_callback(lambda task: self._subscriptions.pop(frame.id, None))

    # -- what time brings ---------------------------------------------------------------------------------------------

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(await self._outlet.keep_alive())

    async def _guard(self) -> None:
        """Ask again and again whether the caller may still do what it does, and end when its token does."""
        while True:
            pause = min(app_settings.PING_SECONDS, self._caller.principal.seconds_left)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_refreshed.wait(), max(pause, 0))
            self._is_refreshed.clear()
            await self._caller.renew()
            for subscription in list(self._subscriptions.values()):
                await subscription.check()
