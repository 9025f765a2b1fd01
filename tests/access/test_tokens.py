"""Public tokens: what the official client signs is good, and nothing else is (wire-protocol 2.2)."""

import base64
import hashlib
import hmac
import json
import time
from datetime import timedelta

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime_runs.access import tokens
from realtime_runs.access.keys import secret_keys
from realtime_runs.access.principals import TokenHolder, from_credential
from realtime_runs.access.rules import follow_tags, only_with_key
from realtime_runs.exceptions import Forbidden, InvalidOption, InvalidToken, KeyNeeded
from tests.access.claims import REMOVED, a_token, the_claims

DAY = 24 * 3600
NOW = time.time()


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def signed(header, claims, *, key=None, algorithm=hashlib.sha256):
    """A token of any header and claims (bytes, or something that JSON can say), whatever a library thinks of it."""
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, claims)]
    text = b".".join(encoded(part) for part in parts)
    signature = hmac.new((key or secret_keys()[0]).encode(), text, algorithm).digest()
    return (text + b"." + encoded(signature)).decode()


def refusal(text):
    with pytest.raises(InvalidToken) as told:
        from_credential(text)
    message = str(told.value)
    assert text[:10] not in message
    assert len(message) < 100
    return message


# -- what is good


def test_a_token_as_the_official_client_signs_it_is_good():
    text = a_token(scopes=["read:runs:run_1", "read:tags:user:1"], otu=True, realtime={"skipColumns": ["payload"]})
    assert jwt.get_unverified_header(text) == {"alg": "HS256"}
    token = tokens.verify(text)
    assert token.scopes.texts == ("read:runs:run_1", "read:tags:user:1")
    assert token.is_single_use
    assert token.skip_columns == {"payload"}
    assert 890 < token.seconds_left <= 900


def test_a_token_of_ours_is_what_the_official_client_would_have_signed():
    text = tokens.sign(["read:runs"], life=timedelta(hours=1), is_single_use=False, skip_columns=["output", "payload"])
    claims = jwt.decode(text, secret_keys()[0], algorithms=["HS256"], audience="https://api.trigger.dev")
    expected = the_claims(otu=False, realtime={"skipColumns": ["output", "payload"]}, iat=claims["iat"])
    assert claims == {**expected, "exp": claims["iat"] + 3600}


@pytest.mark.parametrize(
    "changes",
    [{"iat": REMOVED}, {"realtime": None}, {"realtime": {}}, {"jti": "x"}, {"exp": NOW + 3600.5}, {"otu": False}],
    ids=lambda changes: next(iter(changes)),
)
def test_what_a_token_may_leave_out_or_have_beside(changes):
    token = tokens.verify(a_token(**changes))
    assert not token.is_single_use
    assert token.skip_columns == frozenset()


@pytest.mark.parametrize("scopes", [REMOVED, []], ids=["none", "empty"])
def test_a_token_without_scopes_may_do_nothing(scopes):
    holder = TokenHolder(tokens.verify(a_token(scopes=scopes)))
    with pytest.raises(Forbidden):
        holder.check(follow_tags(["a"]))


def test_no_scope_at_all_opens_what_only_a_key_may():
    holder = TokenHolder(tokens.verify(a_token(scopes=["admin", "*:all"])))
    with pytest.raises(KeyNeeded):
        holder.check(only_with_key("tokens"))


def test_a_clock_that_is_a_little_ahead_is_forgiven():
    assert tokens.verify(a_token(iat=time.time() + 20, exp=time.time() + 20 + 30 * DAY))


# -- what is not: times (H2)

NO_TIMES = [str(int(NOW) + 10), True, None, [NOW + 10], {}, "", "soon", 1e30, 10**30, -1, *map(float, ("inf", "-inf", "nan"))]  # fmt: skip
BAD_TIMES = {
    "expired": {"exp": NOW - 1},
    "expires now": {"exp": int(NOW)},
    "made later": {"iat": NOW + 3600, "exp": NOW + 7200},
    "not before": {"nbf": NOW + 3600},
    "without end": {"exp": REMOVED},
    "lives too long": {"exp": NOW + 31 * DAY},
    "will have lived too long": {"iat": NOW - 20 * DAY, "exp": NOW + 20 * DAY},
    **{f"exp {place}": {"exp": value} for place, value in enumerate(NO_TIMES)},
    **{f"iat {place}": {"iat": value} for place, value in enumerate(NO_TIMES)},
}


@pytest.mark.parametrize("changes", BAD_TIMES.values(), ids=BAD_TIMES)
def test_a_token_outside_of_its_time_is_refused(changes):
    # Not by PyJWT, which refuses to sign some of these.
    refusal(signed({"alg": "HS256"}, the_claims(**changes)))


def test_a_token_ends_while_it_is_used():
    holder = from_credential(a_token(exp=time.time() + 900))
    holder.check(follow_tags(["a"]))
    ended = tokens.PublicToken(holder.token.scopes, time.time() - 0.001, False, frozenset(), "")
    with pytest.raises(Forbidden):
        TokenHolder(ended).check(follow_tags(["a"]))
    assert TokenHolder(ended).seconds_left < 0


def test_the_longest_life_is_a_setting(settings):
    text = a_token(exp=time.time() + 900)
    settings.REALTIME_RUNS = {**settings.REALTIME_RUNS, "TOKEN_MAX_AGE": "5m"}
    assert refusal(text) == "The token is valid for too long."
    assert tokens.verify(tokens.sign(["read:runs"], life=timedelta(minutes=5)))
    with pytest.raises(InvalidOption, match="at most 0:05:00"):
        tokens.sign(["read:runs"], life=timedelta(minutes=6))


# -- headers (H3)

HEADERS = [
    {},
    *({"alg": alg} for alg in ("none", "None", "NONE", "", "HS512", "HS384", "RS256", "ES256", "hs256", None, 5, ["HS256"])),
    {"alg": "HS256", "typ": "at+jwt"},
    {"alg": "HS256", "typ": None},
    {"alg": "HS256", "crit": ["exp"]},
    {"alg": "HS256", "b64": False},
    {"alg": "HS256", "zip": "DEF"},
    {"alg": "HS256", "cty": "JWT"},
    {"alg": "HS256", "jku": "https://example.com/keys"},
    {"alg": "HS256", "x5u": "https://example.com/keys"},
    {"alg": "HS256", "jwk": {"kty": "oct", "k": "c2VjcmV0"}},
    *({"alg": "HS256", "kid": kid} for kid in ("1", "../../dev/null", "", 5, None)),
]  # fmt: skip


@pytest.mark.parametrize("header", HEADERS, ids=str)
def test_a_header_that_asks_for_anything_else_is_refused(header):
    for algorithm in (hashlib.sha256, hashlib.sha512):
        refusal(signed(header, the_claims(), algorithm=algorithm))


@pytest.mark.parametrize("alg", ["none", "HS256"])
def test_a_token_without_a_signature_is_refused(alg):
    text = signed({"alg": alg}, the_claims())
    refusal(text.rpartition(".")[0] + ".")


@pytest.mark.parametrize("key", ["", "null", "x" * 32])
def test_a_token_signed_with_another_key_is_refused(key):
    text = signed({"alg": "HS256"}, the_claims(), key=key or "\0")
    refusal(text)


def test_a_token_that_a_page_signs_with_its_own_token_is_refused():
    # What the official client does where an answer has no x-trigger-jwt.
    refusal(a_token(key=a_token()))


# -- whose it is (H4)

FOREIGN = {
    **{
        f"{name} {value!r}": {name: value}
        for name, value in [
            *(("iss", value) for value in (REMOVED, None, "", "https://example.com", ["https://id.trigger.dev"], 5)),
            *(("aud", value) for value in (REMOVED, None, "", "https://example.com", ["https://api.trigger.dev"], 5)),
            *(("sub", value) for value in (REMOVED, None, "", "env_other", ["env_default"], 5)),
            *(("pub", value) for value in (REMOVED, None, False, "true", 1, [])),
            *(("otu", value) for value in (None, "true", 1, [])),
        ]
    }
}


@pytest.mark.parametrize("changes", FOREIGN.values(), ids=FOREIGN)
def test_a_token_of_another_server_or_for_another_one_is_refused(changes):
    refusal(signed({"alg": "HS256"}, the_claims(**changes)))


def test_a_token_of_another_app_that_signs_with_the_secret_key_is_refused(settings):
    refusal(a_token(key=settings.SECRET_KEY))


# -- scopes and columns (H5)

WRONG_LISTS = ["read:runs", {"read:runs": 1}, None, 5, True, [["read:runs"]], [5], [None], ["read:runs"] * 101]


@pytest.mark.parametrize("scopes", WRONG_LISTS, ids=lambda value: repr(value)[:30])
def test_scopes_that_are_no_list_of_texts_are_refused(scopes):
    refusal(signed({"alg": "HS256"}, the_claims(scopes=scopes)))


@pytest.mark.parametrize(
    "realtime", [5, "payload", [], {"skipColumns": "payload"}, {"skipColumns": 5}, {"skipColumns": [5]}], ids=str
)
def test_columns_to_skip_that_cannot_be_read_are_refused_and_not_shown(realtime):
    refusal(signed({"alg": "HS256"}, the_claims(realtime=realtime)))


# -- texts


@pytest.mark.parametrize("claims", [b"", b"5", b"[]", b"null", b'"x"', b"{", b"\xff", b"[" * 3000], ids=repr)
def test_claims_that_are_no_object_are_refused(claims):
    refusal(signed({"alg": "HS256"}, claims))
    refusal(signed(claims, the_claims()))


@pytest.mark.parametrize("size", [8 * 1024 + 1, 465_000])
def test_what_is_too_long_is_refused_before_it_is_decoded(monkeypatch, size):
    monkeypatch.setattr(jwt, "get_unverified_header", None)
    assert refusal("." * 2 + "a" * (size - 2)) == "The token is too long."


def test_a_token_that_would_be_refused_as_too_long_is_not_made():
    with pytest.raises(InvalidOption, match="at most 8,192"):
        tokens.sign([f"read:tags:{'x' * 128}"] * 100, life=timedelta(hours=1))


@given(st.text(max_size=60).map(lambda text: f"{text}..") | st.text(st.characters(codec="ascii"), max_size=200))
def test_no_text_is_good_by_chance_or_makes_anything_else_than_a_refusal(text):
    with pytest.raises(InvalidToken):
        from_credential(text)


@given(st.data())
def test_a_token_in_which_anything_was_changed_is_refused_or_the_same_token(data):
    text = a_token(otu=True)
    position = data.draw(st.integers(0, len(text) - 1))
    changed = text[:position] + data.draw(st.characters()) + text[position + data.draw(st.integers(0, 1)) :]
    try:
        token = tokens.verify(changed)
    except InvalidToken:
        return
    assert token.digest == tokens.verify(text).digest


def test_a_signature_that_is_written_in_another_way_does_not_make_another_token():
    # Else a single-use token could be used again with a = behind it.
    text = a_token(otu=True)
    others = [f"{text}=", f"{text}==", text + "\n"]
    digests = set()
    for other in others:
        try:
            digests.add(tokens.verify(other).digest)
        except InvalidToken:
            continue
    assert digests <= {tokens.verify(text).digest}


def test_two_tokens_have_two_digests():
    assert tokens.verify(a_token()).digest != tokens.verify(a_token(scopes=["read:tags"])).digest


def test_a_token_is_not_shown_by_its_repr():
    text = a_token(scopes=["read:runs:run_secret"])
    shown = repr(tokens.verify(text))
    assert "run_secret" not in shown
    assert text.rpartition(".")[2] not in shown
    assert tokens.verify(text).digest not in shown
