"""The one line of a project's asgi.py: `application = realtime_runs.routing.application(get_asgi_application())`.

A project with a router of its own puts `http_urlpatterns` and `websocket_urlpatterns` into it instead, and calls
`start()` when it begins to serve.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from asgiref.sync import sync_to_async
from channels.routing import URLRouter
from django.urls import path, re_path

from realtime_runs.engine.backends.base import get_backend

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


def __getattr__(name: str) -> Any:
    """The lists are made when first asked for (PEP 562): asgi.py imports this module before the apps are loaded."""
    if name in ("http_urlpatterns", "websocket_urlpatterns"):
        from realtime_runs.wire.realtime import routes

        return getattr(routes, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def start() -> None:
    """Begin to work: the embedded worker starts in this process."""
    get_backend().start()


def application(django_application: Any, *, prefix: str = "", websockets: Any = None) -> Application:
    """Serve `realtime/` and Django, and work: building the ASGI application is what a server does and other commands do
    not.

    `prefix`: where `realtime_runs.urls` is included, such as "runs/". `websockets`: the project's own ASGI application
    for WebSockets of other paths, such as a `URLRouter`; without one they are refused.

    The embedded worker starts here, at once, and picks up what an earlier process left. It drains when the server says
    that it shuts down (ASGI lifespan: Uvicorn, Hypercorn), or when the process exits (Daphne).
    """
    from realtime_runs.wire.realtime.routes import http_urlpatterns, websocket_urlpatterns  # needs the apps

    start()
    http = _router(prefix, http_urlpatterns, django_application)
    sockets = _router(prefix, websocket_urlpatterns, websockets or _refuse)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            await http(scope, receive, send)
        elif scope["type"] == "websocket":
            await sockets(scope, receive, send)
        else:
            await django_application(scope, receive, send)

    return serve


def _router(prefix: str, urlpatterns: list[Any], other: Any) -> Any:
    """All other paths, also those below the prefix, go to the `other` application."""
    ours: Any = URLRouter(urlpatterns)
    return URLRouter([path(prefix, ours), re_path(r"", other)])


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    """The handshake of a WebSocket: 403."""
    await receive()
    await send({"type": "websocket.close"})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await sync_to_async(get_backend().stop, thread_sensitive=False)()
            await send({"type": "lifespan.shutdown.complete"})
            return
