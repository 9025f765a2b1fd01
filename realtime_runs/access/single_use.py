"""Tokens and tickets that are good for one use."""

from datetime import UTC, datetime

from django.db import transaction

from realtime_runs.exceptions import TokenSpent
from realtime_runs.models import SpentToken


def spend(digest: str, expires_at: float) -> None:
    """Use it up, in the transaction of what it is used for: when that is rolled back, the token is good again.

    `expires_at`: seconds since 1970, until when the use must be remembered. Raises TokenSpent.
    """
    if not transaction.get_connection().in_atomic_block:
        raise RuntimeError("A token is spent in the transaction of what it is used for.")
    mine = SpentToken(digest=digest, expires_at=datetime.fromtimestamp(expires_at, UTC))
    # Two at once: the second waits for the first's transaction, then finds its row. (No exception, so that the
    # transaction stays usable on PostgreSQL.)
    SpentToken.objects.bulk_create([mine], ignore_conflicts=True)
    if not SpentToken.objects.filter(digest=digest, nonce=mine.nonce).exists():
        raise TokenSpent
