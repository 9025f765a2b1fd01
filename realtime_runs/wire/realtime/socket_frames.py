"""The frames that a client sends over the socket (live-protocol 1): read, bounded, and of the right types."""

import json
from dataclasses import dataclass
from typing import Any, Final

from realtime_runs import packets
from realtime_runs.engine.writing import DEFAULT_KEY
from realtime_runs.wire.closing import CloseCode, SocketClosed

MOST_BYTES: Final = 64 * 1024
_MOST_ID: Final = 2**53 - 1  # the integers that every client can tell apart
_MOST_INDEX: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class RunTopic:
    run_id: str


@dataclass(frozen=True, slots=True)
class TagTopic:
    tags: list[str]


@dataclass(frozen=True, slots=True)
class BatchTopic:
    batch_id: str


@dataclass(frozen=True, slots=True)
class StreamTopic:
    run_id: str
    key: str


Topic = RunTopic | TagTopic | BatchTopic | StreamTopic


@dataclass(frozen=True, slots=True)
class Subscribe:
    """`since`: where the client was; an integer of a run or stream, a text of a tag or batch, None at first."""

    id: int
    to: Topic
    since: int | str | None
    window: int | None


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    id: int


@dataclass(frozen=True, slots=True)
class Ack:
    id: int
    at: int


@dataclass(frozen=True, slots=True)
class Send:
    """`size` in bytes."""

    id: int
    run_id: str
    input: str
    data: Any
    size: int


@dataclass(frozen=True, slots=True)
class Pong:
    pass


@dataclass(frozen=True, slots=True)
class Refresh:
    token: str


UpFrame = Subscribe | Unsubscribe | Ack | Send | Pong | Refresh


class BadFrame(SocketClosed):
    def __init__(self) -> None:
        super().__init__(CloseCode.BAD_FRAME)


def parse(message: dict[str, Any]) -> UpFrame:
    """The frame in an ASGI `websocket.receive`. Raises SocketClosed."""
    text = message.get("text")
    if text is None:
        raise BadFrame
    size = _size(text)
    if size > MOST_BYTES:
        raise SocketClosed(CloseCode.FRAME_TOO_BIG)
    fields = _Fields(_object(text))
    match fields.text("type"):
        case "subscribe":
            return _subscribe(fields)
        case "unsubscribe":
            return Unsubscribe(fields.id())
        case "ack":
            return Ack(fields.id(), fields.number("at", least=0, most=_MOST_INDEX))
        case "send":
            return Send(fields.id(), fields.text("run"), fields.text("input"), fields.any("data"), size)
        case "pong":
            return Pong()
        case "refresh":
            return Refresh(fields.text("token"))
        case _:
            raise BadFrame


def _size(text: str) -> int:
    # Uvicorn takes 16 MiB, which need not be encoded to see that it is too much.
    return len(text) if len(text) > MOST_BYTES else len(text.encode(errors="surrogatepass"))


def _object(text: str) -> dict[str, Any]:
    try:
        packets.check_depth(text, "A frame")
        value = json.loads(text, object_pairs_hook=_unique)
        packets.encode(value, "A frame")  # refuses NaN, infinities, NUL and lone surrogates
    except (ValueError, RecursionError):
        raise BadFrame from None
    if not isinstance(value, dict):
        raise BadFrame
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two fields with one name, others may see the other one."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise BadFrame
    return found


class _Fields:
    """The fields of a frame, of the right type or not at all. What nobody knows is ignored."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields

    def any(self, name: str) -> Any:
        if name not in self._fields:
            raise BadFrame
        return self._fields[name]

    def get(self, name: str) -> Any:
        return self._fields.get(name)

    def text(self, name: str) -> str:
        return _text(self.any(name))

    def number(self, name: str, *, least: int, most: int) -> int:
        value = self.any(name)
        if type(value) is not int or not least <= value <= most:  # True is an int, too
            raise BadFrame
        return value

    def id(self) -> int:
        return self.number("id", least=1, most=_MOST_ID)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise BadFrame
    return value


def _subscribe(fields: _Fields) -> Subscribe:
    since = fields.get("since")
    if isinstance(since, bool) or not isinstance(since, int | str | None):
        raise BadFrame
    to = _topic(fields.any("to"))
    if isinstance(to, StreamTopic) and since is not None and (isinstance(since, str) or not 0 <= since <= _MOST_INDEX):
        raise BadFrame
    window = None if fields.get("window") is None else fields.number("window", least=1, most=_MOST_INDEX)
    return Subscribe(fields.id(), to, since, window)


def _topic(to: Any) -> Topic:
    if not isinstance(to, dict) or len(to) != 1:
        raise BadFrame
    ((kind, value),) = to.items()
    if kind == "run":
        return RunTopic(_text(value))
    if kind == "tag":
        tags = [value] if isinstance(value, str) else value
        if not isinstance(tags, list) or not tags:
            raise BadFrame
        return TagTopic([*map(_text, tags)])
    if kind == "batch":
        return BatchTopic(_text(value))
    if kind == "stream" and isinstance(value, dict):
        stream = _Fields(value)
        return StreamTopic(stream.text("run"), _text(value.get("key", DEFAULT_KEY)))
    raise BadFrame
