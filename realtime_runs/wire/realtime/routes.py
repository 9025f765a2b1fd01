"""Which consumer answers which path below `realtime/`. Lists for `channels.routing.URLRouter`."""

from typing import Any, Final

from django.urls import re_path

from realtime_runs.wire.realtime import inputs, runs, socket, stream_read, stream_write, tickets
from realtime_runs.wire.realtime.base import NotFoundConsumer


def _route(pattern: str, consumer: Any) -> Any:
    """Patterns are regular expressions: a stream key may hold a slash, and what it may not hold is refused later."""
    application: Any = consumer.as_asgi()
    return re_path(pattern, application)


_WRITTEN: Final = r"realtime/v1/streams/(?P<run_id>[^/]+)/(?P<target>self|parent|root)/(?P<key>.+)"

http_urlpatterns: Final[list[Any]] = [
    _route(r"^realtime/v1/runs/(?P<run_id>[^/]+)$", runs.RunConsumer),
    _route(r"^realtime/v1/runs$", runs.TaggedRunsConsumer),
    _route(r"^realtime/v1/batches/(?P<batch_id>[^/]+)$", runs.BatchRunsConsumer),
    _route(r"^realtime/v1/streams/(?P<run_id>[^/]+)/input/(?P<key>.+)$", inputs.InputConsumer),
    _route(rf"^{_WRITTEN}/append$", stream_write.StreamAppendConsumer),
    _route(rf"^{_WRITTEN}$", stream_write.StreamWriteConsumer),
    _route(r"^realtime/v1/streams/(?P<run_id>[^/]+)/(?P<key>.+)$", stream_read.StreamConsumer),
    _route(r"^realtime/v1/tickets$", tickets.TicketConsumer),
    _route(r"^realtime/", NotFoundConsumer),
]
websocket_urlpatterns: Final[list[Any]] = [
    _route(r"^realtime/v1/socket$", socket.SocketConsumer),
]
