"""The options of a trigger, checked once for every way of triggering."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Self, TypedDict

from realtime_runs.conf import app_settings
from realtime_runs.durations import Duration, parse_duration, parse_when
from realtime_runs.engine.definition import TaskDefinition
from realtime_runs.exceptions import InvalidOption, TooLarge
from realtime_runs.packets import check_text, encode


class TriggerOptions(TypedDict, total=False):
    """The options of `trigger`, all optional.

    tags: at most 10 texts of at most 128 characters · metadata: a JSON object, at most 256 KiB · idempotency_key: at
    most 2,048 characters; while it lives, the same task and key give the same run · idempotency_key_as_written: what
    the run shows instead of a key that is a hash of it · idempotency_key_ttl: default 30 days · delay: a duration or an
    aware datetime; the run is DELAYED until then · ttl: a duration; EXPIRED when not started in time · queue,
    concurrency_key: names, stored with the run · priority: seconds of head start in the queue · max_attempts: from 1 ·
    max_duration: a duration; TIMED_OUT after so much executing · is_test: a mark for filters.
    """

    tags: str | Iterable[str]
    metadata: Mapping[str, Any]
    idempotency_key: str
    idempotency_key_as_written: str
    idempotency_key_ttl: Duration
    delay: Duration | datetime
    ttl: Duration
    queue: str
    concurrency_key: str
    priority: float
    max_attempts: int
    max_duration: Duration
    is_test: bool


@dataclass(frozen=True, slots=True)
class CheckedOptions:
    tags: tuple[str, ...]
    metadata: str
    idempotency_key: str
    idempotency_key_ttl: timedelta
    delay: timedelta
    ttl: str
    expires_after: timedelta | None
    queue: str
    concurrency_key: str
    priority: float
    max_attempts: int
    max_duration: float | None
    is_test: bool = field(default=False)
    idempotency_key_as_written: str = ""

    @property
    def shown_key(self) -> str:
        return (self.idempotency_key_as_written or self.idempotency_key) if self.idempotency_key else ""

    @classmethod
    def check(cls, task: TaskDefinition[Any, Any], options: TriggerOptions) -> Self:
        """Raises InvalidOption, TooLarge or NotJson; unknown names are a TypeError, as for any function."""
        if unknown := options.keys() - TriggerOptions.__annotations__.keys():
            raise TypeError(f"trigger() got an unexpected option {sorted(unknown)[0]!r}.")
        ttl = options.get("ttl", task.ttl)
        max_duration = options.get("max_duration")
        max_duration = task.max_duration if max_duration is None else parse_duration(max_duration, "max_duration")
        return cls(
            tags=check_tags(options.get("tags", ())),
            metadata=check_metadata(options.get("metadata", {})),
            idempotency_key=check_key(options.get("idempotency_key", "")),
            idempotency_key_as_written=check_key(options.get("idempotency_key_as_written", "")),
            idempotency_key_ttl=parse_duration(
                options.get("idempotency_key_ttl", app_settings.IDEMPOTENCY_KEY_TTL), "idempotency_key_ttl"
            ),
            delay=parse_when(options.get("delay", 0)),
            ttl="" if ttl is None else str(ttl),
            expires_after=None if ttl is None else parse_duration(ttl, "ttl"),
            queue=_name(options.get("queue", task.queue), "queue", 255),
            concurrency_key=_name(options.get("concurrency_key", ""), "concurrency_key", 255),
            priority=_seconds(options.get("priority", 0)),
            max_attempts=_attempts(options.get("max_attempts", task.retry.attempts)),
            max_duration=max_duration.total_seconds() if max_duration else None,
            is_test=bool(options.get("is_test", False)),
        )


def check_tags(tags: str | Iterable[str], already: Iterable[str] = ()) -> tuple[str, ...]:
    """All tags, sorted; blank and repeated ones are dropped. Raises InvalidOption or TooLarge; then none is added."""
    if not isinstance(tags, Iterable):
        raise InvalidOption(f"Tags are texts, not {tags!r}.")
    given = [tags] if isinstance(tags, str) else list(tags)
    found = set(already)
    for tag in given:
        if not isinstance(tag, str):
            raise InvalidOption(f"A tag is a text, not {tag!r}.")
        check_text(tag, "tag")
        if len(tag) > app_settings.MAX_TAG_LENGTH:
            raise TooLarge(f"tag {tag[:20]!r}…", len(tag), app_settings.MAX_TAG_LENGTH, "MAX_TAG_LENGTH", "characters")
        if tag.strip():
            found.add(tag)
    if len(found) > app_settings.MAX_TAGS:
        raise TooLarge("run", len(found), app_settings.MAX_TAGS, "MAX_TAGS", "tags")
    return tuple(sorted(found))


def check_metadata(metadata: Mapping[str, Any]) -> str:
    if not isinstance(metadata, Mapping):
        raise InvalidOption("The metadata must be an object.")
    text = encode(dict(metadata), "metadata")
    check_metadata_size(text)
    return text


def check_metadata_size(text: str) -> None:
    """Raises TooLarge above MAX_METADATA_BYTES (UTF-8)."""
    if len(text) * 4 > app_settings.MAX_METADATA_BYTES:  # only then it can be too large
        size = len(text.encode(errors="surrogatepass"))
        if size > app_settings.MAX_METADATA_BYTES:
            raise TooLarge("metadata", size, app_settings.MAX_METADATA_BYTES, "MAX_METADATA_BYTES")


def check_key(key: Any) -> str:
    """Raises InvalidOption or NotJson."""
    return _name(key, "idempotency_key", app_settings.MAX_IDEMPOTENCY_KEY_LENGTH)


def hash_key(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _name(value: Any, what: str, longest: int) -> str:
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise InvalidOption(f"{what} must be a text, not {value!r}.")
    text = str(value)
    check_text(text, what)
    if len(text) > longest:
        raise InvalidOption(f"{what} has {len(text):,} characters; at most {longest:,} are allowed.")
    return text


def _seconds(value: Any) -> float:
    # A head start of more than a century has no place on the database's calendar.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 100 * 366 * 86_400:
        raise InvalidOption(f"priority must be a number of seconds, not {value!r}.")
    return float(value)


def _attempts(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1000:
        raise InvalidOption(f"max_attempts must be a whole number from 1 to 1000, not {value!r}.")
    return value
