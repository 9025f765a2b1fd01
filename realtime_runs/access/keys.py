"""The secret keys: who holds one may do everything, and signs the public tokens (wire-protocol 2.1)."""

import hashlib
import hmac
import re
from typing import Final

from django.conf import settings

from realtime_runs.conf import app_settings

# There is one environment in a project; its id is what public tokens carry as `sub`.
ENVIRONMENT_ID: Final = "env_" + "default".ljust(21, "0")

# The official client does not sign with a key of the second form, and takes the first for a token.
_LIKE_A_TOKEN: Final = re.compile(r"[^.]+\.[^.]+\.[^.]+")
_ADDITIONAL_KEY: Final = re.compile(r"tr_(dev|stg|prod|preview)_sk_[A-Za-z0-9]{24}")
SHORTEST_KEY: Final = 16


def secret_keys() -> tuple[str, ...]:
    """All keys that are valid; the first signs. Without SECRET_KEYS, one derived from Django's SECRET_KEY.

    After a rotation of that, those derived from SECRET_KEY_FALLBACKS go on verifying.
    """
    configured = tuple(app_settings.SECRET_KEYS)
    return configured or tuple(_derived(str(key)) for key in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS))


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
    if _LIKE_A_TOKEN.fullmatch(key):
        return "has three parts with dots between them, like a token"
    if _ADDITIONAL_KEY.fullmatch(key):
        return "has the form of a Trigger.dev additional key, with which the official client does not sign tokens"
    return None


def _derived(secret: str) -> str:
    digest = hmac.new(secret.encode(), b"realtime_runs.access.keys", hashlib.sha256).hexdigest()
    return f"tr_dev_{digest[:40]}"
