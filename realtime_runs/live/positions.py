"""Where a reader of runs is, as a text that it sends back when it returns: so that it goes on, in whatever process.

Of one run that is its version. Of a tag or a batch it is a time of the database's clock, before which all changes were
visible and so were given, and fingerprints of the versions given that changed since then: a time alone could lose a
change that became visible late, or give it twice (DESIGN 6, promise 5).
"""

import base64
import binascii
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Self

from realtime_runs.exceptions import InvalidOption
from realtime_runs.live.snapshot import RealtimeRun

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = 10**17  # microseconds: the year 5138
_FINGERPRINT_BYTES: Final = 6
# A text with more would be too long for the headers it travels in. So this process keeps them for a while, under an id:
# another process will give again what changed a moment before.
_MOST_IN_TEXT: Final = 200
_MOST_KEPT: Final = 200  # positions
_KEPT_MARK: Final = "~"
_MOST_TRACKED: Final = 1000


def fingerprint(run: RealtimeRun) -> bytes:
    return hashlib.blake2b(f"{run.id}:{run.version}".encode(), digest_size=_FINGERPRINT_BYTES).digest()


@dataclass(frozen=True, slots=True)
class FeedPosition:
    """`since`: what changed before was given. `known`: fingerprints of what was given of the rest."""

    since: datetime
    known: frozenset[bytes] = frozenset()

    def knows(self, run: RealtimeRun) -> bool:
        return run.updated_at < self.since or fingerprint(run) in self.known

    @property
    def microseconds(self) -> int:
        return (self.since - _EPOCH) // timedelta(microseconds=1)

    @property
    def known_text(self) -> str:
        if len(self.known) > _MOST_IN_TEXT:
            return _KEPT_MARK + _kept.keep(self.known)
        return base64.urlsafe_b64encode(b"".join(sorted(self.known))).decode().rstrip("=")

    def __str__(self) -> str:
        return f"{self.microseconds}.{self.known_text}"

    @classmethod
    def parse(cls, text: str) -> Self:
        microseconds, _, known = text.partition(".")
        if not microseconds.isascii() or not microseconds.isdigit() or len(microseconds) > 17:
            raise InvalidOption("The position is not one that was given.")
        return cls.of(int(microseconds), known)

    @classmethod
    def of(cls, microseconds: int, known_text: str) -> Self:
        """Raises InvalidOption for what `microseconds` and `known_text` cannot have been."""
        if not 0 <= microseconds < _LATEST:
            raise InvalidOption("The position is not one that was given.")
        since = _EPOCH + timedelta(microseconds=microseconds)
        if known_text.startswith(_KEPT_MARK):
            return cls(since, _kept.find(known_text[1:]))
        try:
            data = base64.b64decode(known_text + "=" * (-len(known_text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            data = b"?"
        if len(data) % _FINGERPRINT_BYTES:
            raise InvalidOption("The position is not one that was given.")
        pieces = range(0, len(data), _FINGERPRINT_BYTES)
        return cls(since, frozenset(data[start : start + _FINGERPRINT_BYTES] for start in pieces))


class _Kept:
    """Sets of fingerprints by their id, the newest ones."""

    def __init__(self) -> None:
        self._sets: OrderedDict[str, frozenset[bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, known: frozenset[bytes]) -> str:
        name = hashlib.blake2b(b"".join(sorted(known)), digest_size=16).hexdigest()
        with self._lock:
            self._sets[name] = known
            self._sets.move_to_end(name)
            while len(self._sets) > _MOST_KEPT:
                self._sets.popitem(last=False)
        return name

    def find(self, name: str) -> frozenset[bytes]:
        with self._lock:
            return self._sets.get(name, frozenset())


_kept: Final = _Kept()


class FeedTracker:
    """Keeps the position of one reader of a tag or a batch."""

    def __init__(self, horizon: datetime, position: FeedPosition | None = None) -> None:
        """`horizon`: read before the runs are (see `reading.read_horizon`). `position`: where it was, if it returns."""
        self._horizon = horizon if position is None else max(horizon, position.since)
        self._position = position
        self._given: dict[str, tuple[datetime, bytes]] = {}

    def take(self, runs: Iterable[RealtimeRun]) -> list[RealtimeRun]:
        """Those of the runs that are new to the reader; it has them now."""
        new = []
        for run in runs:
            if self._position is None or not self._position.knows(run):
                new.append(run)
            if run.updated_at >= self._horizon:
                self._given[run.id] = (run.updated_at, fingerprint(run))
        return new

    @property
    def position(self) -> FeedPosition:
        return FeedPosition(self._horizon, frozenset(mark for _, mark in self._given.values()))

    @property
    def is_full(self) -> bool:
        """Whether the reader should begin anew from its position, which costs one read and forgets what is old."""
        return len(self._given) > _MOST_TRACKED


class RunTracker:
    """The same for one run: its position is the version."""

    is_full = False

    def __init__(self, version: int = 0) -> None:
        self.position = version

    def take(self, runs: Iterable[RealtimeRun]) -> list[RealtimeRun]:
        new = [run for run in runs if run.version > self.position]
        if new:
            self.position = max(run.version for run in new)
        return new


Tracker = FeedTracker | RunTracker
