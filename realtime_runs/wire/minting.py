"""Tokens that the server makes: those it was asked for, and those of an answer's headers (wire-protocol 2.2, 2.4)."""

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from realtime_runs.access import tokens
from realtime_runs.access.principals import Principal

FOR_RUNS: Final = timedelta(hours=1)
FOR_WAIT_TOKENS: Final = timedelta(hours=24)


def token_headers(principal: Principal, scopes: Sequence[str], life: timedelta) -> dict[str, str]:
    """`x-trigger-jwt` and the claims it was made of: what the caller of a trigger needs to watch what it made."""
    columns = principal.skip_columns
    return {
        "x-trigger-jwt-claims": json.dumps(tokens.claims_of(scopes, columns), separators=(",", ":")),
        "x-trigger-jwt": tokens.sign(scopes, life=min(life, tokens.longest_life()), skip_columns=columns),
    }


def run_token_headers(principal: Principal, run_id: str) -> dict[str, str]:
    return token_headers(principal, [f"read:runs:{run_id}", f"write:inputStreams:{run_id}"], FOR_RUNS)


def batch_token_headers(principal: Principal, batch_id: str, *, is_page: bool) -> dict[str, str]:
    """A page (`x-trigger-client: browser`) uploads the items itself, with this token."""
    scopes = [f"read:batch:{batch_id}", *([f"write:batch:{batch_id}"] if is_page else [])]
    return token_headers(principal, scopes, FOR_RUNS)
