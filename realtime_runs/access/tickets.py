"""One-time tickets, for an EventSource of another origin: it cannot send headers, and a token has no place in a URL."""

import hashlib
import time
from typing import Any, Final

from django.contrib.auth import get_user_model
from django.core import signing

from realtime_runs.access.keys import keyed_hash, secret_keys
from realtime_runs.access.principals import KeyHolder, Principal, SiteUser, TokenHolder
from realtime_runs.access.scopes import Scopes
from realtime_runs.access.single_use import spend
from realtime_runs.access.tokens import PublicToken
from realtime_runs.exceptions import InvalidToken, TokenSpent
from realtime_runs.ids import new_lease_token
from realtime_runs.turns import atomic

LIFE_SECONDS: Final = 30
_SALT: Final = "realtime_runs.access.tickets"


def issue(principal: Principal) -> str:
    """A text that stands for this principal once, within 30 seconds."""
    claims: dict[str, Any] = {"nonce": new_lease_token()}
    if principal.token is not None:
        token = principal.token
        claims |= {"scopes": token.scopes.texts, "exp": token.expires_at, "skip": sorted(token.skip_columns)}
        claims["once"] = token.is_single_use
    elif isinstance(principal, SiteUser):
        claims["user"] = str(principal.user.pk)
    return signing.dumps(claims, key=_signing_keys()[0], salt=_SALT)


def redeem(ticket: str) -> Principal:
    """Whom the ticket stands for; it is used up. Raises InvalidToken."""
    claims = _claims(ticket)
    digest = hashlib.sha256(ticket.encode()).hexdigest()
    try:
        with atomic():
            spend(digest, time.time() + 2 * LIFE_SECONDS)
    except TokenSpent:
        raise InvalidToken("The ticket has been used before; get another one.") from None
    if "user" in claims:
        user = get_user_model()._default_manager.filter(pk=claims["user"]).first()
        if user is None or not user.is_active:  # which not every model of users keeps in a column
            raise InvalidToken("The ticket is not valid.")
        return SiteUser(user)
    if "scopes" in claims:
        scopes, skipped = Scopes(claims["scopes"]), frozenset(claims["skip"])
        return TokenHolder(PublicToken(scopes, claims["exp"], claims["once"], skipped, digest))
    return KeyHolder()


def _claims(ticket: str) -> dict[str, Any]:
    first, *others = _signing_keys()
    try:
        # Without `fallback_keys`, those of Django would be good, too.
        claims: dict[str, Any] = signing.loads(
            ticket, key=first, salt=_SALT, max_age=LIFE_SECONDS, fallback_keys=[*others]
        )
    except signing.SignatureExpired:
        raise InvalidToken("The ticket has expired; get another one.") from None
    except signing.BadSignature:
        raise InvalidToken("The ticket is not valid.") from None
    return claims


def _signing_keys() -> list[str]:
    return [keyed_hash("ticket", "", key) for key in secret_keys()]
