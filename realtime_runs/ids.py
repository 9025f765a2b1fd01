"""Public ids: a prefix, the time in milliseconds and microseconds, and 87 random bits, in `[0-9a-z]`.

The time comes first so that rows made together lie together in an index, and that lists by id are in the order in which
one host made them, also when it made several within a millisecond; the random part makes an id unguessable.
Ids are not cursors of any feed: the clock that makes them belongs to one host.
"""

import secrets
import time
from datetime import datetime

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_TIME_DIGITS = 9  # milliseconds in base 36: enough until the year 5188
_MICROSECOND_DIGITS = 2  # 0 to 999
_RANDOM_DIGITS = 17  # 36 ** 17 is 87 bits
ID_LENGTH = 40  # of the database columns; ids have 28 characters and a prefix


def is_possible(id: str) -> bool:
    """Whether a run, batch or token can have it: PostgreSQL refuses the character NUL, in questions too."""
    return "\0" not in id


def _base36(number: int, digits: int) -> str:
    out = []
    for _ in range(digits):
        number, digit = divmod(number, 36)
        out.append(_ALPHABET[digit])
    return "".join(reversed(out))


def _new(prefix: str) -> str:
    milliseconds, microseconds = divmod(time.time_ns() // 1000, 1000)
    at = _base36(milliseconds, _TIME_DIGITS) + _base36(microseconds, _MICROSECOND_DIGITS)
    return prefix + at + _base36(secrets.randbits(87), _RANDOM_DIGITS)


def new_run_id() -> str:
    return _new("run_")


def earliest_run_id(at: datetime) -> str:
    """No run whose id was made then, or later, has a lower one."""
    return "run_" + _base36(max(0, int(at.timestamp() * 1000)), _TIME_DIGITS)


def new_batch_id() -> str:
    return _new("batch_")


def new_wait_token_id() -> str:
    return _new("waitpoint_")


def new_lease_token() -> str:
    return secrets.token_hex(8)
