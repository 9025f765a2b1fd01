"""JSON for the wire: of any value that a run may hold, and encoded once for all readers of this process."""

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Final

import orjson

_MOST_BYTES: Final = 16 * 1024 * 1024
_LARGEST: Final = 1024 * 1024


def dumps(value: Any) -> bytes:
    """orjson is fast but refuses lone surrogates and integers of more than 64 bits, which a task may have returned."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, separators=(",", ":")).encode()


class Encoded:
    """Encoded values by key; those that were used last, up to a number of bytes. For event loops and threads alike."""

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._values: OrderedDict[Hashable, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, encode: Callable[[], bytes]) -> bytes:
        with self._lock:
            found = self._values.get(key)
            if found is not None:
                self._values.move_to_end(key)
                return found
        value = encode()
        if len(value) <= _LARGEST:
            with self._lock:
                if key not in self._values:
                    self._values[key] = value
                    self._bytes += len(value)
                while self._bytes > self._most_bytes:
                    self._bytes -= len(self._values.popitem(last=False)[1])
        return value
