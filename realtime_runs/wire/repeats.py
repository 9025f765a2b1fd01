"""Requests that make something: once, however often the client repeats them (wire-protocol 1.5, 2.5)."""

import hashlib
from collections.abc import Callable
from typing import NamedTuple

from django.http import HttpRequest

from realtime_runs.access import single_use
from realtime_runs.access.principals import Principal
from realtime_runs.models import AnsweredRequest, database_now
from realtime_runs.models.wire import new_nonce
from realtime_runs.turns import atomic


class Made(NamedTuple):
    """A run or batch. `is_cached`: an earlier one with the same idempotency key."""

    id: str
    is_cached: bool = False


def make_once(request: HttpRequest, principal: Principal, route: str, make: Callable[[], Made]) -> Made:
    """What `make` makes, or, where the same caller repeats a request, what that has made. Spends a single-use token.

    All in one transaction: a request that is refused has made nothing, spent nothing, and is not remembered. `route`:
    the same key on another one is another request. Raises TokenSpent, and what `make` raises.
    """
    key = request.headers.get("X-Trigger-Request-Idempotency-Key", "")
    with atomic():
        mine = AnsweredRequest(digest=_digest(route, principal.identity, key), made=new_nonce())
        if key and (made_before := _claim(mine)):
            return Made(made_before)
        if (token := principal.token) and token.is_single_use:
            single_use.spend(token.digest, token.expires_at)
        made = make()
        if key:
            AnsweredRequest.objects.filter(pk=mine.pk).update(made=made.id)
        return made


def _claim(mine: AnsweredRequest) -> str | None:
    """What a request with this digest has made. None: this is the first one."""
    mine.created_at = database_now()
    AnsweredRequest.objects.bulk_create([mine], ignore_conflicts=True)  # waits for one that is just being answered
    made = AnsweredRequest.objects.filter(pk=mine.pk).values_list("made", flat=True).first()
    return None if made == mine.made else made


def _digest(*parts: str) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode(errors="surrogatepass")
        digest.update(len(data).to_bytes(8) + data)
    return digest.hexdigest()
