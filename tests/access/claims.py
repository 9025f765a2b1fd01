"""Public tokens as the official client signs them, with PyJWT alone, and with anything in them that one likes."""

import time
from typing import Any

import jwt

from realtime_runs.access.keys import ENVIRONMENT_ID, secret_keys

REMOVED = ...  # in place of a value: without this claim


def the_claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    claims = {
        "sub": ENVIRONMENT_ID,
        "pub": True,
        "scopes": ["read:runs"],
        "iss": "https://id.trigger.dev",
        "aud": "https://api.trigger.dev",
        "iat": now,
        "exp": now + 900,
        **changes,
    }
    return {name: value for name, value in claims.items() if value is not REMOVED}


def a_token(*, key: str | None = None, header: dict[str, Any] | None = None, **changes: Any) -> str:
    """`header` None: exactly `{"alg": "HS256"}`, as the official client writes it."""
    headers = {"typ": None} if header is None else header  # PyJWT leaves out a typ of None
    return jwt.encode(the_claims(**changes), key or secret_keys()[0], algorithm="HS256", headers=headers)
