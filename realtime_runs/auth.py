"""Public tokens: what a page or another service needs to watch a run, or to trigger a task, and nothing else.

    token = auth.create_public_token(["read:runs:run_…", "read:tags:user:1234"], expires_in="1h")

Nothing is stored: a token is valid until it expires, or until the secret key that signed it is removed.
"""

from collections.abc import Iterable, Mapping

from realtime_runs.access.scopes import check_scopes
from realtime_runs.access.tokens import sign
from realtime_runs.durations import Duration, parse_duration

__all__ = ["create_batch_trigger_public_token", "create_public_token", "create_trigger_public_token"]

_DEFAULT = "15m"

# {"read": {"runs": ["run_…"], "tags": True}}: by action and type the ids, or True for all of the type.
ScopeMapping = Mapping[str, Mapping[str, str | Iterable[str] | bool]]


def create_public_token(
    scopes: Iterable[str] | ScopeMapping,
    *,
    expires_in: Duration = _DEFAULT,
    skip_columns: Iterable[str] = (),
) -> str:
    """A token that allows what its scopes say: `<action>:<type>` or `<action>:<type>:<id>`.

    Actions: `read`, `write`, `trigger`, `batchTrigger`. Types: `runs`, `tasks`, `tags`, `batch`, `waitpoints`,
    `inputStreams`. Or a dict: `{"read": {"runs": ["run_…"], "tags": "user:1234"}}`. `expires_in`: default 15 minutes,
    at most TOKEN_MAX_AGE (30 days). `skip_columns`: fields of the run, such as `payload`, that subscriptions with this
    token do not get. Raises InvalidOption for scopes without a meaning, or more of them than 100 or 8 KiB.
    """
    texts = _texts(scopes) if isinstance(scopes, Mapping) else _several(scopes)
    check_scopes(texts)
    return sign(texts, life=parse_duration(expires_in, "expires_in"), skip_columns=_several(skip_columns))


def create_trigger_public_token(
    task: str | Iterable[str], *, expires_in: Duration = _DEFAULT, multiple_use: bool = False
) -> str:
    """A token that may trigger these tasks, by id: one run, or any number with `multiple_use`."""
    return _create("trigger", task, expires_in, multiple_use)


def create_batch_trigger_public_token(
    task: str | Iterable[str], *, expires_in: Duration = _DEFAULT, multiple_use: bool = False
) -> str:
    """A token that may trigger batches of these tasks: one, or any number with `multiple_use`."""
    return _create("batchTrigger", task, expires_in, multiple_use)


def _create(action: str, task: str | Iterable[str], expires_in: Duration, multiple_use: bool) -> str:
    texts = [f"{action}:tasks:{task_id}" for task_id in _several(task)]
    check_scopes(texts)
    return sign(texts, life=parse_duration(expires_in, "expires_in"), is_single_use=not multiple_use)


def _texts(scopes: ScopeMapping) -> list[str]:
    found = []
    for action, types in scopes.items():
        for type_, ids in types.items():
            if ids is True:
                found.append(f"{action}:{type_}")
            elif ids is not False:
                found += [f"{action}:{type_}:{id_}" for id_ in _several(ids)]
    return found


def _several(texts: str | Iterable[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else list(texts)
