"""When a failed attempt is tried again."""

import math
import random
from dataclasses import dataclass
from typing import Self

from realtime_runs.conf import app_settings
from realtime_runs.exceptions import InvalidOption


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Back-off between attempts: `min_seconds`, then `factor` times longer each time, at most `max_seconds`.

    `max_attempts` counts the first one (None: the setting MAX_ATTEMPTS). With `jitter` the wait is drawn between half
    of it and all of it, so that a thousand runs that failed together do not come back together.
    """

    max_attempts: int | None = None
    factor: float = 2
    min_seconds: float = 1
    max_seconds: float = 60
    jitter: bool = True

    def __post_init__(self) -> None:
        if self.max_attempts is not None and (type(self.max_attempts) is not int or self.max_attempts < 1):
            raise InvalidOption(f"max_attempts must be at least 1, not {self.max_attempts!r}.")
        if not (0 <= self.min_seconds <= self.max_seconds < math.inf and self.factor >= 1):
            raise InvalidOption("A Retry needs 0 <= min_seconds <= max_seconds and factor >= 1.")

    @property
    def attempts(self) -> int:
        return self.max_attempts or app_settings.MAX_ATTEMPTS

    def seconds_after(self, attempt: int) -> float:
        """How long to wait after this failed attempt (from 1)."""
        try:
            seconds = min(self.max_seconds, self.min_seconds * float(self.factor) ** (attempt - 1))
        except OverflowError:
            seconds = self.max_seconds if self.min_seconds else 0.0
        return seconds * random.uniform(0.5, 1) if self.jitter else seconds  # noqa: S311 no secret

    @classmethod
    def once(cls) -> Self:
        return cls(max_attempts=1)
