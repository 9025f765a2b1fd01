"""Public access tokens: HS256 JWTs exactly as the official client signs them (wire-protocol 2.2)."""

import hashlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import jwt

from realtime_runs.access.keys import ENVIRONMENT_ID, secret_keys
from realtime_runs.access.scopes import MOST_SCOPES, Scopes
from realtime_runs.conf import app_settings
from realtime_runs.durations import parse_duration
from realtime_runs.exceptions import InvalidOption, InvalidToken

ISSUER: Final = "https://id.trigger.dev"
AUDIENCE: Final = "https://api.trigger.dev"
_ALGORITHM: Final = "HS256"
_LARGEST: Final = 8 * 1024  # characters; refused before anything is decoded
_CLOCK_SKEW: Final = 30  # seconds that the clock of who signed may be ahead
_REQUIRED: Final = ["exp", "iss", "aud", "sub"]


@dataclass(frozen=True, slots=True)
class PublicToken:
    """A token whose signature and times are right. `expires_at`: seconds since 1970. `digest`: in hex, of what was
    signed, because the same signature can be written in several ways.
    """

    scopes: Scopes = field(repr=False)
    expires_at: float
    is_single_use: bool
    skip_columns: frozenset[str]
    digest: str = field(repr=False)

    @property
    def seconds_left(self) -> float:
        return self.expires_at - time.time()


def sign(
    scopes: Iterable[str],
    *,
    life: timedelta,
    is_single_use: bool | None = None,
    skip_columns: Iterable[str] = (),
) -> str:
    """The text of a new token, signed with the first secret key. Raises InvalidOption when it would be too long, or
    valid for too long. The caller has checked the scopes.
    """
    check_life(life)
    now = int(time.time())
    claims: dict[str, Any] = {**claims_of(scopes, skip_columns), "iss": ISSUER, "aud": AUDIENCE}
    if is_single_use is not None:
        claims["otu"] = is_single_use
    claims |= {"iat": now, "exp": now + max(1, round(life.total_seconds()))}
    text = jwt.encode(claims, secret_keys()[0], algorithm=_ALGORITHM)
    if len(text) > _LARGEST:
        raise InvalidOption(f"The token would have {len(text):,} characters; at most {_LARGEST:,} are possible.")
    return text


def longest_life() -> timedelta:
    return parse_duration(app_settings.TOKEN_MAX_AGE)


def check_life(life: timedelta) -> None:
    """Raises InvalidOption."""
    if not timedelta(0) < life <= longest_life():
        raise InvalidOption(f"A token must expire in the future, and at most {longest_life()} from now.")


def claims_of(scopes: Iterable[str] | None = None, skip_columns: Iterable[str] = ()) -> dict[str, Any]:
    """The claims that the server decides, which a client puts into the tokens that it signs itself."""
    claims: dict[str, Any] = {"sub": ENVIRONMENT_ID, "pub": True}
    if scopes is not None:
        claims["scopes"] = list(scopes)
    if columns := sorted(skip_columns):
        claims["realtime"] = {"skipColumns": columns}
    return claims


def verify(text: str) -> PublicToken:
    """Raises InvalidToken, which says why without showing the token."""
    if len(text) > _LARGEST:
        raise InvalidToken("The token is too long.")
    try:
        header = jwt.get_unverified_header(text)
        # What a header asks for beyond the algorithm (crit, jku, a key of its own) is nothing we would do.
        if header.get("alg") != _ALGORITHM or header.get("typ", "JWT") != "JWT" or header.keys() - {"alg", "typ"}:
            raise InvalidToken("The token must be signed with HS256, and say nothing else in its header.")
        claims = _verified(text)
    except InvalidToken:
        raise
    except jwt.ExpiredSignatureError:
        raise InvalidToken("The token has expired.") from None
    # Also a text that is no JSON, or is nested too deeply: whatever a stranger signs.
    except (jwt.PyJWTError, ValueError, RecursionError, TypeError, OverflowError):
        raise InvalidToken("The token is not valid.") from None
    return _checked(text, claims)


def _verified(text: str) -> Mapping[str, Any]:
    """The claims, if any of the keys has signed them."""
    keys = secret_keys()
    for key in keys[:-1]:
        try:
            return _decode(text, key)
        except jwt.InvalidSignatureError:
            continue
    return _decode(text, keys[-1])


def _decode(text: str, key: str) -> Mapping[str, Any]:
    options: Any = {"require": _REQUIRED, "verify_iat": False}
    claims: dict[str, Any] = jwt.decode(
        text, key, algorithms=[_ALGORITHM], issuer=ISSUER, audience=AUDIENCE, options=options
    )
    return claims


def _checked(text: str, claims: Mapping[str, Any]) -> PublicToken:
    now = time.time()
    expires_at, issued_at = claims["exp"], claims.get("iat", now)
    if not _is_number(expires_at) or not _is_number(issued_at):
        raise InvalidToken("The token's times must be numbers.")
    # From when it was made, so that one which is refused today is not accepted later.
    if expires_at > min(now, issued_at) + longest_life().total_seconds() + _CLOCK_SKEW:
        raise InvalidToken("The token is valid for too long.")
    if issued_at > now + _CLOCK_SKEW:
        raise InvalidToken("The token is not valid yet.")
    if claims["sub"] != ENVIRONMENT_ID or claims["aud"] != AUDIENCE or claims.get("pub") is not True:
        raise InvalidToken("The token is not one of this server.")
    scopes = claims.get("scopes", [])
    if not isinstance(scopes, list) or len(scopes) > MOST_SCOPES or not all(isinstance(one, str) for one in scopes):
        raise InvalidToken(f"The token's scopes must be a list of at most {MOST_SCOPES} texts.")
    is_single_use = claims.get("otu", False)
    if not isinstance(is_single_use, bool):
        raise InvalidToken("The token's otu must be true or false.")
    return PublicToken(
        scopes=Scopes(scopes),
        expires_at=expires_at,
        is_single_use=is_single_use,
        skip_columns=_skip_columns(claims.get("realtime")),
        digest=hashlib.sha256(text.rpartition(".")[0].encode()).hexdigest(),
    )


def _skip_columns(realtime: Any) -> frozenset[str]:
    # What cannot be read is refused: else the columns would be shown.
    columns = [] if realtime is None else realtime.get("skipColumns", []) if isinstance(realtime, dict) else None
    if not isinstance(columns, list) or not all(isinstance(one, str) for one in columns):
        raise InvalidToken("The token's realtime.skipColumns must be a list of texts.")
    return frozenset(columns)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value < 1e12
