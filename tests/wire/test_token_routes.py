"""`POST /api/v1/auth/…`: wire-protocol 2.2, and the tokens in headers of 2.4 where lives are short."""

import time

import jwt
import pytest

from realtime_runs.access.tokens import verify
from tests import tasks as t
from tests.wire.api import call, post, token

pytestmark = pytest.mark.django_db(transaction=True)

CLAIMS, TOKENS = "/api/v1/auth/jwt/claims", "/api/v1/auth/public-tokens"


def test_the_claims_are_those_of_tokens_that_this_server_takes():
    answer = post(CLAIMS)
    assert (answer.status_code, answer["Content-Type"]) == (200, "application/json")
    assert answer.json() == {"sub": "env_default00000000000000", "pub": True}


def test_a_token_as_the_protocol_shows():
    answer = post(TOKENS, {"scopes": ["read:runs"], "expirationTime": "1h", "oneTimeUse": False})
    assert (answer.status_code, answer.json().keys()) == (200, {"token"})
    made = answer.json()["token"]
    assert verify(made).scopes.texts == ("read:runs",)
    assert jwt.decode(made, options={"verify_signature": False})["otu"] is False
    assert 3590 < verify(made).seconds_left <= 3600


def test_all_that_can_be_wished_for():
    wish = {"scopes": ["admin"], "oneTimeUse": True, "realtime": {"skipColumns": ["payload"]}}
    made = verify(post(TOKENS, {**wish, "expirationTime": time.time() + 600}).json()["token"])
    assert made.is_single_use
    assert made.skip_columns == {"payload"}
    assert 580 < made.seconds_left <= 600


def test_a_token_lives_for_a_quarter_of_an_hour():
    assert 890 < verify(post(TOKENS, {"scopes": ["read:runs"]}).json()["token"]).seconds_left <= 900


SCOPES = [
    [],
    "read:runs",
    None,
    [5],
    ["read"],
    ["read:runs:"],
    [""],
    ["read:runs"] * 101,
    [f"read:tags:{'x' * 128}"] * 100,
]
TIMES = ["soon", "0s", "-1h", "31d", "", 0, -1, True, None, [], 4e9, "9" * 60]
WRONG = [
    *({"scopes": scopes} for scopes in SCOPES),
    *({"scopes": ["read:runs"], "expirationTime": when} for when in TIMES),
    {"scopes": ["read:runs"], "oneTimeUse": "perhaps"},
    {"scopes": ["read:runs"], "realtime": {"skipColumns": "payload"}},
    {"scopes": ["read:runs"], "realtime": 5},
    {},
    [],
]


@pytest.mark.parametrize("wish", WRONG, ids=lambda wish: str(wish)[:60])
def test_a_wish_without_a_meaning_is_refused(wish):
    answer = post(TOKENS, wish)
    assert answer.status_code == 400
    assert isinstance(answer.json()["error"], str)


@pytest.mark.parametrize("path", [CLAIMS, TOKENS])
def test_a_public_token_makes_no_other_one(path):
    answer = post(path, {"scopes": ["read:runs"]}, auth=token("admin", "*:all"))
    assert answer.status_code == 401
    assert "token" not in answer.json()


@pytest.mark.parametrize("path", [CLAIMS, TOKENS])
def test_other_methods_are_none(path):
    answer = call("GET", path)
    assert (answer.status_code, answer.json()) == (405, {"error": "Method not allowed"})


def test_the_token_of_an_answer_does_not_live_longer_than_any_may(settings):
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "TOKEN_MAX_AGE": "10m"}
    answer = post(f"/api/v1/tasks/{t.echo.id}/trigger", {"payload": 1})
    assert 590 < verify(answer["x-trigger-jwt"]).seconds_left <= 600
