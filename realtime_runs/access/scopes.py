"""What a public token allows (wire-protocol 2.3): `<action>:<type>` or `<action>:<type>:<id>`, or `admin`.

Everything after the second colon is the id, so ids may hold colons. What has no meaning, such as an empty id, grants
nothing: it can never mean more than its author wrote.
"""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from realtime_runs.exceptions import InvalidOption

ADMIN: Final = "admin"
ANY_ACTION: Final = "*"
ALL_TYPES: Final = "all"
MOST_SCOPES: Final = 100


class Grant(NamedTuple):
    """An action on one thing; `id` None: on all of its type."""

    action: str
    type: str
    id: str | None = None


class Scopes:
    """The scopes of one token, for questions."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = tuple(texts)
        self._is_admin = ADMIN in self.texts
        self._grants = frozenset(grant for text in self.texts if (grant := parse(text)))

    def allow(self, wanted: Grant) -> bool:
        """Whether one of them grants it. A grant of a whole type covers every id of it, not the other way round."""
        if self._is_admin:
            return True
        ids = {None, wanted.id}
        return any(
            Grant(action, type_, id_) in self._grants
            for action in (wanted.action, ANY_ACTION)
            for type_, id_ in [*((wanted.type, id_) for id_ in ids), (ALL_TYPES, None)]
        )


def check_scopes(texts: list[Any]) -> None:
    """Whether a token may be made with them. Raises InvalidOption."""
    if not 1 <= len(texts) <= MOST_SCOPES:
        raise InvalidOption(f"A token has 1 to {MOST_SCOPES} scopes, not {len(texts)}.")
    for text in texts:
        if not isinstance(text, str) or (parse(text) is None and text != ADMIN):
            raise InvalidOption(f"A scope is a text such as 'read:runs:run_123' or 'read:tags', not {text!r}.")


def parse(text: str) -> Grant | None:
    """None for `admin` and for what has no meaning."""
    action, _, rest = text.partition(":")
    type_, has_id, id_ = rest.partition(":")
    if not action or not type_ or (has_id and not id_):
        return None
    return Grant(action, type_, id_ if has_id else None)
