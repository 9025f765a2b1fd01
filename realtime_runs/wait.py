"""Waiting inside a task: for a time, or for a wait token that somebody completes. The run is WAITING meanwhile, its
slot is free for other runs, and `max_duration` does not count.

    token = wait.create_token(timeout="1h", tags=["doc:1"])      # anywhere
    wait.complete_token(token, {"approved": True})               # anywhere, by its id; the first one counts
    approval = (await wait.afor_token(token)).unwrap()           # in a task

A token argument is an id or a WaitToken. Functions that touch the database have an async twin: `a` + name.
"""

import asyncio
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Final

from asgiref.sync import sync_to_async

from realtime_runs.conf import app_settings
from realtime_runs.durations import Duration, parse_duration, parse_when
from realtime_runs.engine import wait_tokens
from realtime_runs.engine.context import ActiveRun, active_run
from realtime_runs.engine.options import check_tags
from realtime_runs.engine.pausing import apaused, check_can_pause, paused
from realtime_runs.engine.wait_token_listing import WaitTokenPage, filtered
from realtime_runs.engine.wait_token_listing import list_tokens as _list_tokens
from realtime_runs.engine.wait_tokens import WaitResult, WaitToken
from realtime_runs.exceptions import InvalidOption, RunStopped
from realtime_runs.models.wait_token import WaitTokenStatus
from realtime_runs.packets import check_text

__all__ = [
    "WaitResult",
    "WaitToken",
    "WaitTokenPage",
    "WaitTokenStatus",
    "acomplete_token",
    "acreate_token",
    "afor_",
    "afor_token",
    "alist_tokens",
    "aretrieve_token",
    "auntil",
    "complete_token",
    "create_token",
    "for_",
    "for_token",
    "list_tokens",
    "retrieve_token",
    "until",
]

TokenArgument = str | WaitToken

_DEFAULT_TIMEOUT: Final = timedelta(minutes=10)


# -- for a time -------------------------------------------------------------------------------------------------------


def for_(duration: Duration) -> None:
    """Wait for so long: seconds, a `timedelta` or `"1h30m"`.

    An attempt that is repeated waits again. Raises RunStopped when the run is told to stop, NotInsideRun,
    InvalidOption, InvalidInput inside of `atomic()`.
    """
    _wait(check_can_pause("wait.for_()", "await wait.afor_()"), parse_duration(duration))


async def afor_(duration: Duration) -> None:
    await _await(active_run("wait.afor_()"), parse_duration(duration))


def until(when: datetime) -> None:
    """Wait until then; a time in the past is now. Raises InvalidOption for a naive datetime, and what `for_` raises."""
    _wait(check_can_pause("wait.until()", "await wait.auntil()"), parse_when(when, "when"))


async def auntil(when: datetime) -> None:
    await _await(active_run("wait.auntil()"), parse_when(when, "when"))


def _wait(active: ActiveRun, time: timedelta) -> None:
    with paused(active):
        is_stopped = active.context.signal.wait(time.total_seconds())
    if is_stopped:
        raise RunStopped(active.run.id)


async def _await(active: ActiveRun, time: timedelta) -> None:
    async with apaused(active):
        await asyncio.sleep(time.total_seconds())


# -- for a token ------------------------------------------------------------------------------------------------------


def create_token(
    *,
    timeout: Duration | datetime | None = None,
    tags: str | Iterable[str] = (),
    idempotency_key: str = "",
    idempotency_key_ttl: Duration | None = None,
) -> WaitToken:
    """Make a wait token. Its id is all that one needs to complete it, so tell it to nobody else.

    `timeout`: a duration or an aware datetime, default 10 minutes; then the token is TIMED_OUT. `tags`: as those of
    runs. `idempotency_key`: at most 2,048 characters; for `idempotency_key_ttl` (default 30 days) the same key gives
    the same token, whatever became of it. Raises InvalidOption, TooLarge, NotJson.
    """
    ttl = app_settings.IDEMPOTENCY_KEY_TTL if idempotency_key_ttl is None else idempotency_key_ttl
    return wait_tokens.create(
        timeout=_DEFAULT_TIMEOUT if timeout is None else parse_when(timeout, "timeout"),
        tags=check_tags(tags),
        key=_check_key(idempotency_key),
        key_ttl=parse_duration(ttl, "idempotency_key_ttl"),
    )


acreate_token = sync_to_async(create_token)


def complete_token(token: TokenArgument, data: Any = None) -> WaitToken:
    """Complete a token with any JSON value of at most MAX_PAYLOAD_BYTES (3 MiB), and return it.

    The first one counts: a token that is COMPLETED or TIMED_OUT already comes back unchanged. Inside of `atomic()` who
    waits goes on when that is committed. Raises WaitTokenNotFound, NotJson, TooLarge.
    """
    return wait_tokens.complete(_id(token), data)


acomplete_token = sync_to_async(complete_token)


def retrieve_token(token: TokenArgument) -> WaitToken:
    """The token as it is now. Raises WaitTokenNotFound."""
    return wait_tokens.retrieve(_id(token))


aretrieve_token = sync_to_async(retrieve_token)


def list_tokens(
    *,
    status: str | Iterable[str] | None = None,
    tags: str | Iterable[str] | None = None,
    idempotency_key: str | None = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
    period: Duration | None = None,
    page_size: int = 25,
    after: str | None = None,
    before: str | None = None,
) -> WaitTokenPage:
    """A page of tokens, newest first; iterating it (`for`, `async for`) goes on through all later pages.

    `status`, `tags`: one or several, of which any may match. `period`: created not longer ago than this. `page_size`:
    1 to 100. `after`, `before`: `next` or `previous` of an earlier page. Raises InvalidOption for an unknown status,
    cursor, page size or naive time.
    """
    tokens = filtered(
        status=status,
        tags=tags,
        idempotency_key=idempotency_key,
        created_after=created_after,
        created_before=created_before,
        period=None if period is None else parse_duration(period, "period"),
    )
    return _list_tokens(tokens, page_size, after, before)


alist_tokens = sync_to_async(list_tokens)


def for_token(token: TokenArgument) -> WaitResult[Any]:
    """In a task: wait until the token is completed or timed out. A time-out does not raise: look at `.ok`, or call
    `.unwrap()`.

    An attempt that is repeated should wait for the same token: make it outside of the task, or with an idempotency key.
    Raises WaitTokenNotFound, RunStopped when the run is told to stop, NotInsideRun, InvalidInput inside of `atomic()`.
    """
    return wait_tokens.wait_for(check_can_pause("wait.for_token()", "await wait.afor_token()"), _id(token))


async def afor_token(token: TokenArgument) -> WaitResult[Any]:
    return await wait_tokens.await_for(active_run("wait.afor_token()"), _id(token))


def _id(token: TokenArgument) -> str:
    token_id = token if isinstance(token, str) else token.id
    check_text(token_id, "The id of a wait token")
    return token_id


def _check_key(key: str) -> str:
    longest: int = app_settings.MAX_IDEMPOTENCY_KEY_LENGTH
    if not isinstance(key, str) or len(key) > longest:
        raise InvalidOption(f"idempotency_key is a text of at most {longest:,} characters.")
    check_text(key, "idempotency_key")
    return key
