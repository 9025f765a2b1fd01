"""Who asks: the holder of a secret key, of a public token, or a user of the site. Each knows what it may do."""

import time
from typing import Any, Final

from django.db.models import QuerySet

from realtime_runs.access import rules
from realtime_runs.access.keys import is_secret_key, looks_like_token
from realtime_runs.access.policy import get_policy
from realtime_runs.access.tokens import PublicToken, verify
from realtime_runs.exceptions import Forbidden, InvalidToken, KeyNeeded
from realtime_runs.models import Run


class Principal:
    """`may` answers, `check` raises Forbidden or KeyNeeded. Both may query the database for a user of the site."""

    token: PublicToken | None = None

    def check(self, need: rules.Need) -> None:
        if not self.may(need):
            raise Forbidden

    def may(self, need: rules.Need) -> bool:
        raise NotImplementedError

    def visible(self, runs: "QuerySet[Run]") -> "QuerySet[Run]":
        """Those of the runs that a list or feed for which `check` passed may show."""
        return runs

    @property
    def sees_all(self) -> bool:
        """Whether `visible` keeps everything of a list or feed for which `check` passed."""
        return True

    @property
    def identity(self) -> str:
        """Different for each key holder, token and user of the site; says nothing of the credential."""
        return self.token.digest if self.token else "key"

    @property
    def skip_columns(self) -> frozenset[str]:
        return self.token.skip_columns if self.token else frozenset()

    @property
    def seconds_left(self) -> float:
        """After which it must not be served any more."""
        return self.token.seconds_left if self.token else float("inf")


class KeyHolder(Principal):
    def may(self, need: rules.Need) -> bool:
        return True


class TokenHolder(Principal):
    def __init__(self, token: PublicToken) -> None:
        self.token: PublicToken = token

    def check(self, need: rules.Need) -> None:
        if not need.alternatives:
            raise KeyNeeded
        super().check(need)

    def may(self, need: rules.Need) -> bool:
        if self.token.expires_at <= time.time():
            return False
        allow = self.token.scopes.allow
        return any(alternative and all(map(allow, alternative)) for alternative in need.alternatives)


class SiteUser(Principal):
    """Somebody with a session of the Django project; what it may is the project's policy."""

    def __init__(self, user: Any) -> None:
        self.user = user

    def may(self, need: rules.Need) -> bool:
        return get_policy().can(self.user, need.action, need.run)

    def visible(self, runs: "QuerySet[Run]") -> "QuerySet[Run]":
        return get_policy().visible(self.user, runs)

    @property
    def sees_all(self) -> bool:
        return False

    @property
    def identity(self) -> str:
        return f"user:{self.user.pk}"


_BEARER: Final = "bearer"


def from_header(authorization: str) -> Principal:
    """Who an Authorization header speaks for. Raises InvalidToken; what it says never shows the credential."""
    scheme, _, credential = authorization.partition(" ")
    credential = credential.strip()
    if scheme.lower() != _BEARER or not credential:
        raise InvalidToken("Send the header `Authorization: Bearer <secret key or public token>`.")
    return from_credential(credential)


def from_credential(credential: str) -> Principal:
    if looks_like_token(credential):
        return TokenHolder(verify(credential))
    if is_secret_key(credential):
        return KeyHolder()
    raise InvalidToken("The key is not valid.")
