"""The one line of a project's asgi.py: `application = realtime_runs.routing.application(get_asgi_application())`."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from asgiref.sync import sync_to_async

from realtime_runs.engine.backends.base import get_backend

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


def application(django_application: Any) -> Application:
    """Serve Django, and work: building the ASGI application is what a server does and other commands do not.

    So the embedded worker starts here, at once, and picks up what an earlier process left. It drains when the server
    says that it shuts down (ASGI lifespan: Uvicorn, Hypercorn), or when the process exits (Daphne).
    """
    get_backend().start()

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        else:
            await django_application(scope, receive, send)

    return serve


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await sync_to_async(get_backend().stop, thread_sensitive=False)()
            await send({"type": "lifespan.shutdown.complete"})
            return
