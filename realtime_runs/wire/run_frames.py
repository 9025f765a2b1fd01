"""Runs as the frames of live-protocol 1 and 2: of each run the fields that changed after what the reader has."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any, Final

from realtime_runs.live.snapshot import RealtimeRun
from realtime_runs.wire.encoding import Encoded, dumps
from realtime_runs.wire.packet_urls import PacketUrls
from realtime_runs.wire.run_object import run_object

_MOST_HELD: Final = 10_000  # runs whose fields a reader is known to hold; others are sent whole again
_FIELDS_KEPT: Final = 1000
_PAGE_RUNS: Final = 100
_PAGE_BYTES: Final = 240 * 1024
_LARGE_PACKET: Final = 64 * 1024  # bytes; goes by reference where there are URLs
_SMALL_PACKET: Final = 1024  # bytes; not worth a URL
_MOST_ERROR: Final = 4096  # characters of the texts of an error that would not fit otherwise

_encoded: Final = Encoded()
Fields = dict[str, Any]
_fields: "OrderedDict[tuple[str, int], Fields]" = OrderedDict()


def fields_of(run: RealtimeRun) -> Fields:
    """The run object without its payload, which never changes; one for all readers of a version."""
    key = (run.id, run.version)
    found = _fields.get(key)
    if found is None:
        found = {name: value for name, value in run_object(run).items() if name != "payload"}
        _fields[key] = found
        while len(_fields) > _FIELDS_KEPT:
            _fields.popitem(last=False)
    return found


class RunFrames:
    """What one reader holds, and so what the next frame must say. For one event loop."""

    def __init__(self, *, held: int = 0, skipped: Iterable[str] = (), packet_urls: PacketUrls | None = None) -> None:
        """`held`: the version that the reader of one run says it has. `skipped`: fields that it does not get.
        `packet_urls`: where it gets payloads and outputs that are too large for a frame; None: they are in it.
        """
        self._packet_urls = packet_urls
        self._first_held = held
        self._skipped = frozenset(skipped) - _ALWAYS
        self._held: OrderedDict[str, tuple[int, Fields]] = OrderedDict()

    def encode(self, runs: Iterable[RealtimeRun], *, live: bool = True, reset: bool = False) -> bytes:
        """The frame as JSON: `{"runs": [{"run", "from", "v", "set"}], "live", "reset"?}`."""
        parts = [self._part(run) for run in runs]
        flags = (b"true" if live else b"false") + (b',"reset":true' if reset else b"")
        return b'{"runs":[' + b",".join(parts) + b'],"live":' + flags + b"}"

    def pages(self, runs: Iterable[RealtimeRun]) -> Iterator[tuple[bytes, bool]]:
        """`"runs":[…]` for as many frames as are not too large, at least one; True with the last."""
        parts: list[bytes] = []
        size = 0
        for part in map(self._part, runs):
            if parts and (len(parts) == _PAGE_RUNS or size + len(part) > _PAGE_BYTES):
                yield b'"runs":[' + b",".join(parts) + b"]", False
                parts, size = [], 0
            parts.append(part)
            size += len(part) + 1
        yield b'"runs":[' + b",".join(parts) + b"]", True

    def _part(self, run: RealtimeRun) -> bytes:
        fields = fields_of(run)
        from_version, old = self._held.pop(run.id, (self._first_held, None))
        self._held[run.id] = (run.version, fields)
        while len(self._held) > _MOST_HELD:
            self._held.popitem(last=False)
        urls = self._packet_urls
        key = (run.id, from_version, run.version, self._skipped, old is None, urls and urls.key)
        return _encoded.get(key, lambda: self._encode(run, fields, from_version, old))

    def _encode(self, run: RealtimeRun, fields: Fields, from_version: int, old: Fields | None) -> bytes:
        if old is not None:
            changed = {name: value for name, value in fields.items() if name not in old or old[name] != value}
            changed |= dict.fromkeys(old.keys() - fields.keys())
        elif from_version:
            changed = fields
        else:
            changed = run_object(run)
        wanted = {name: value for name, value in changed.items() if name not in self._skipped}
        frame = {"run": run.id, "from": from_version, "v": run.version, "set": wanted}
        if self._packet_urls is None:
            return dumps(frame)
        self._refer(run, wanted, self._packet_urls, _LARGE_PACKET)
        data = dumps(frame)
        if len(data) > _PAGE_BYTES:
            self._refer(run, wanted, self._packet_urls, _SMALL_PACKET)
            if "error" in wanted:
                wanted["error"] = {name: text[-_MOST_ERROR:] for name, text in (wanted["error"] or {}).items()}
            data = dumps(frame)
        return data

    def _refer(self, run: RealtimeRun, wanted: Fields, urls: PacketUrls, most: int) -> None:
        for name, packet in (("payload", run.payload_packet), ("output", run.output_packet)):
            if name in wanted and packet.size > most:
                del wanted[name]
                wanted[f"{name}PresignedUrl"] = urls.url(run.id, name)


_ALWAYS: Final = frozenset({"id", "taskIdentifier", "status", "createdAt", "updatedAt"})
