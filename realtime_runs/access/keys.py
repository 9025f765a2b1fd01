"""The secret keys: who holds one may do everything, and signs the public tokens (wire-protocol 2.1)."""

import hashlib
import hmac
import re
from typing import Final

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from realtime_runs.conf import app_settings

# There is one environment in a project; its id is what public tokens carry as `sub`.
ENVIRONMENT_ID: Final = "env_" + "default".ljust(21, "0")

# The official client does not sign with these.
_ADDITIONAL_KEY: Final = re.compile(r"tr_(dev|stg|prod|preview)_sk_[A-Za-z0-9]{24}")
SHORTEST_KEY: Final = 32  # the least for HS256 (RFC 7518, 3.2)


def secret_keys() -> tuple[str, ...]:
    """All keys that are valid; the first signs. Without SECRET_KEYS, one derived from Django's SECRET_KEY.

    After a rotation of that, those derived from SECRET_KEY_FALLBACKS go on verifying. Raises ImproperlyConfigured
    rather than trust a key that is none: servers run no system checks, and anybody can sign with an empty one.
    """
    configured = app_settings.SECRET_KEYS
    if not configured:
        return tuple(_derived(str(key)) for key in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS) if key)
    if not isinstance(configured, list | tuple) or any(map(what_is_wrong_with, configured)):
        raise ImproperlyConfigured("REALTIME_RUNS['SECRET_KEYS'] cannot be used; `manage.py check` says why.")
    return tuple(configured)


def looks_like_token(text: str) -> bool:
    """Three parts with dots between them; everything else is taken for a secret key."""
    return text.count(".") == 2


def is_secret_key(text: str) -> bool:
    given = text.encode(errors="surrogatepass")
    return any(hmac.compare_digest(given, key.encode()) for key in secret_keys())


def keyed_hash(purpose: str, text: str, key: str | None = None) -> str:
    """An HMAC-SHA-256 in hex that only who has a secret key can make, different for each purpose."""
    secret = secret_keys()[0] if key is None else key
    return hmac.new(secret.encode(), f"{purpose}:{text}".encode(), hashlib.sha256).hexdigest()


def is_keyed_hash(given: str, purpose: str, text: str, *, length: int = 64) -> bool:
    """Whether it is the beginning, so long, of one that was made with any of the keys."""
    candidates = [keyed_hash(purpose, text, key)[:length] for key in secret_keys()]
    return any(hmac.compare_digest(given.encode(errors="surrogatepass"), one.encode()) for one in candidates)


def what_is_wrong_with(key: object) -> str | None:
    """Why this cannot be a secret key, for the system check."""
    if not isinstance(key, str) or len(key) < SHORTEST_KEY:
        return f"is not a text of at least {SHORTEST_KEY} characters"
    if not key.isascii() or not key.isprintable() or " " in key:
        return "has characters that a header cannot carry"
    if looks_like_token(key):
        return "has two dots, like a token"
    if _ADDITIONAL_KEY.fullmatch(key):
        return "has the form of a Trigger.dev additional key, with which the official client does not sign tokens"
    return None


def _derived(secret: str) -> str:
    digest = hmac.new(secret.encode(), b"realtime_runs.access.keys", hashlib.sha256).hexdigest()
    return f"tr_dev_{digest[:40]}"
