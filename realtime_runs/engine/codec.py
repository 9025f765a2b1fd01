"""How chunks and input records of a type become bytes, and values again."""

import json
from typing import Any, Generic, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from realtime_runs.conf import app_settings
from realtime_runs.exceptions import ChunkInvalid, TooLarge
from realtime_runs.packets import encode_result

T = TypeVar("T")


class Codec(Generic[T]):
    """`what` and `limit_setting` are for chunks of the stream `key`, as errors call them."""

    def __init__(self, type_: Any, key: str, what: str = "The chunk", limit_setting: str = "MAX_CHUNK_BYTES") -> None:
        self._key = key
        self._what = what
        self._limit_setting = limit_setting
        self._is_text = type_ is str
        self._adapter: TypeAdapter[T] | None = None if type_ in (Any, str) else TypeAdapter(type_)

    def encode(self, value: Any) -> bytes:
        """Raises ChunkInvalid, NotJson or TooLarge."""
        if self._is_text and not isinstance(value, str):
            raise ChunkInvalid(self._key, f"a text was expected, not {type(value).__name__}")
        if self._adapter is not None:
            try:
                value = self._adapter.dump_python(self._adapter.validate_python(value), mode="json", by_alias=True)
            except ValidationError as error:
                raise ChunkInvalid(self._key, str(error)) from error
        data = encode_result(value, self._what).encode()
        limit: int = getattr(app_settings, self._limit_setting)
        if len(data) > limit:
            raise TooLarge(self._what, len(data), limit, self._limit_setting)
        return data

    def decode(self, data: bytes) -> T:
        """Raises ChunkInvalid for what was stored without this type."""
        if self._adapter is None:
            return cast(T, json.loads(data))
        try:
            return self._adapter.validate_json(data)
        except ValidationError as error:
            raise ChunkInvalid(self._key, str(error)) from error
