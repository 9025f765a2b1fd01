"""The REST half of the API through Django's test client."""

import json
from datetime import timedelta
from typing import Any

from django.test import Client

from realtime_runs.access import tokens
from realtime_runs.access.keys import secret_keys

_HANDLER = Client().handler  # each of its own would load the middleware again, a tenth of what a request takes


def token(*scopes: str, life: timedelta = timedelta(minutes=15), **how: Any) -> str:
    return tokens.sign(scopes, life=life, **how)


def call(method: str, path: str, data: Any = None, *, auth: str | None = None, **headers: str) -> Any:
    """The answer. `data`: bytes, or something that JSON can say; `auth`: a secret key unless given, none if empty."""
    credential = secret_keys()[0] if auth is None else auth
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    if credential:
        given["authorization"] = f"Bearer {credential}"
    content_type = given.pop("content-type", "application/json")
    content = data if isinstance(data, bytes) else b"" if data is None else json.dumps(data).encode()
    client = Client()
    client.handler = _HANDLER
    return client.generic(method, path, content, content_type=content_type, headers=given)


def post(path: str, data: Any = None, **how: Any) -> Any:
    return call("POST", path, data, **how)


def get(path: str, **how: Any) -> Any:
    return call("GET", path, **how)


def claims(answer: Any) -> dict[str, Any]:
    """Of the token in an answer's headers, which must be the claims beside it, signed."""
    said: dict[str, Any] = json.loads(answer["x-trigger-jwt-claims"])
    signed = tokens.verify(answer["x-trigger-jwt"])
    assert list(signed.scopes.texts) == said["scopes"]
    assert 3590 < signed.seconds_left <= 3600
    return said
