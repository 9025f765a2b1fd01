"""Wait tokens: made by anybody, completed by anybody once, waited for by tasks.

Whether one is in time is decided by the database's clock, in the statement that changes it. So a completion and the
time-out may race: one of them changes the row.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Generic, TypeVar

from realtime_runs.database import read
from realtime_runs.engine.context import ActiveRun
from realtime_runs.engine.options import hash_key
from realtime_runs.engine.pausing import Listen, apaused, aread, await_until, paused, wait_until
from realtime_runs.exceptions import WaitTimeout, WaitTokenNotFound
from realtime_runs.ids import new_wait_token_id
from realtime_runs.live import bell
from realtime_runs.live.listeners import TokenListener
from realtime_runs.models import FromNow, WaitTokenTag, database_now
from realtime_runs.models import WaitToken as Row
from realtime_runs.models.wait_token import WaitTokenStatus
from realtime_runs.packets import NOTHING, Packet, check_size, encode, unpack
from realtime_runs.turns import atomic

T = TypeVar("T")

_SOON: Final = 0.01  # seconds; two clocks may differ by a moment


@dataclass(frozen=True, slots=True)
class WaitToken:
    """A wait token as it was when it was read.

    `status`: WAITING, COMPLETED or TIMED_OUT. `timeout_at`: when it times out, or did. `idempotency_key`: as it was
    given, or empty. `is_cached`: an earlier token with the same key is meant, none was made.
    """

    id: str
    status: WaitTokenStatus
    tags: tuple[str, ...]
    created_at: datetime
    timeout_at: datetime
    completed_at: datetime | None
    idempotency_key: str
    idempotency_key_expires_at: datetime | None
    output_packet: Packet
    is_cached: bool = False

    @property
    def output(self) -> Any:
        """What it was completed with; None before, and after a time-out."""
        return unpack(self.output_packet)

    @property
    def is_waiting(self) -> bool:
        return self.status == WaitTokenStatus.WAITING

    @property
    def is_completed(self) -> bool:
        return self.status == WaitTokenStatus.COMPLETED

    @property
    def is_timed_out(self) -> bool:
        return self.status == WaitTokenStatus.TIMED_OUT


@dataclass(frozen=True, slots=True)
class WaitResult(Generic[T]):
    """How waiting for a token ended."""

    token: WaitToken

    @property
    def ok(self) -> bool:
        return self.token.is_completed

    @property
    def output(self) -> T:
        """What it was completed with; None after a time-out."""
        output: T = self.token.output
        return output

    def unwrap(self) -> T:
        """The output. Raises WaitTimeout when the token timed out."""
        if not self.ok:
            raise WaitTimeout(f"The completion of wait token {self.token.id}")
        return self.output


def snapshot(row: Row, *, is_cached: bool = False) -> WaitToken:
    return WaitToken(
        id=row.id,
        status=WaitTokenStatus(row.status),
        tags=tuple(row.tag_names),
        created_at=row.created_at,
        timeout_at=row.timeout_at,
        completed_at=row.completed_at,
        idempotency_key=row.idempotency_key,
        idempotency_key_expires_at=row.key_expires_at,
        output_packet=row.output_packet,
        is_cached=is_cached,
    )


def retrieve(token_id: str) -> WaitToken:
    """The token as it is now. Raises WaitTokenNotFound."""
    row = Row.objects.filter(pk=token_id).first()
    if row is None:
        raise WaitTokenNotFound(token_id)
    if row.status == WaitTokenStatus.WAITING and time_out([token_id]):
        row.refresh_from_db()
    return snapshot(row)


@atomic()
def create(*, timeout: timedelta, tags: tuple[str, ...], key: str, key_ttl: timedelta) -> WaitToken:
    """Make a token, or find the one that holds the idempotency key."""
    now = database_now()
    row = Row(
        id=new_wait_token_id(),
        tag_names=list(tags),
        created_at=now,
        timeout_at=now + timeout,
        idempotency_key=key,
        key_hash=hash_key(key) if key else "",
        key_expires_at=now + key_ttl if key else None,
    )
    if key and (holder := _claim_key(row)) is not None:
        return snapshot(holder, is_cached=True)
    if not key:
        row.save(force_insert=True)
    WaitTokenTag.objects.bulk_create(WaitTokenTag(token=row, name=name) for name in tags)
    return snapshot(row)


def _claim_key(row: Row) -> Row | None:
    """Insert the row, or return the one that holds its key. The unique constraint decides races."""
    while True:
        # Of several callers who see that the key is free again, the WHERE lets one through.
        Row.objects.filter(key_hash=row.key_hash, key_expires_at__lte=FromNow()).update(key_hash="")
        # Waits for a transaction that is just inserting the same key; if that one rolls back, the key is ours.
        Row.objects.bulk_create([row], ignore_conflicts=True)
        holder = Row.objects.filter(key_hash=row.key_hash).first()
        if holder is not None:  # else it was pruned this moment
            return None if holder.id == row.id else holder


@atomic()
def complete(token_id: str, data: Any) -> WaitToken:
    """Complete the token with the data; one that is settled already stays as it is. Raises WaitTokenNotFound."""
    output = NOTHING if data is None else Packet(encode(data, "data"))
    check_size(output, "data", "MAX_PAYLOAD_BYTES")
    changed = (
        Row.objects.open()
        .filter(pk=token_id)
        .update(status=WaitTokenStatus.COMPLETED, completed_at=FromNow(), output=output.text, output_type=output.type)
    )
    if changed:
        bell.announce_tokens([token_id])
    return retrieve(token_id)


@atomic()
def time_out(token_ids: Sequence[str]) -> bool:
    """Mark those of the tokens whose time is up. Whether there was one."""
    changed = Row.objects.overdue().filter(pk__in=token_ids).update(status=WaitTokenStatus.TIMED_OUT)
    if changed:
        bell.announce_tokens(token_ids)
    return bool(changed)


# -- waiting ----------------------------------------------------------------------------------------------------------


def wait_for(active: ActiveRun, token_id: str) -> WaitResult[Any]:
    """Block until the token is settled; the run is WAITING meanwhile. Raises WaitTokenNotFound, RunStopped."""
    found = read(_look, token_id)
    if isinstance(found, float):
        with paused(active):
            while isinstance(found, float):
                wait_until(active, lambda: _settled(token_id), _listen_to(token_id), time.monotonic() + found)
                found = read(_look, token_id)
    return WaitResult(found)


async def await_for(active: ActiveRun, token_id: str) -> WaitResult[Any]:
    found = await aread(lambda: _look(token_id))
    if isinstance(found, float):
        async with apaused(active):
            while isinstance(found, float):
                await await_until(active, lambda: _settled(token_id), _listen_to(token_id), time.monotonic() + found)
                found = await aread(lambda: _look(token_id))
    return WaitResult(found)


def _look(token_id: str) -> WaitToken | float:
    """The token when it is settled; else the seconds that are left."""
    token = retrieve(token_id)
    return max((token.timeout_at - database_now()).total_seconds(), _SOON) if token.is_waiting else token


def _settled(token_id: str) -> WaitToken | None:
    token = retrieve(token_id)
    return None if token.is_waiting else token


def _listen_to(token_id: str) -> Listen:
    def listen(wake: Callable[[], None], loop: asyncio.AbstractEventLoop | None) -> TokenListener:
        return TokenListener(token_id, wake, loop)

    return listen
