"""System checks of the settings. Each has a hint that says what to type."""

import math
from collections.abc import Sequence
from typing import Any

from channels.layers import InMemoryChannelLayer, get_channel_layer
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import connections
from django.utils.module_loading import import_string

from realtime_runs.access.keys import what_is_wrong_with
from realtime_runs.access.policy import Policy
from realtime_runs.conf import DEFAULTS
from realtime_runs.durations import parse_duration
from realtime_runs.engine import registry
from realtime_runs.engine.backends.base import get_backend
from realtime_runs.exceptions import InvalidOption

_DURATIONS = {"IDEMPOTENCY_KEY_TTL", "FEED_LOOK_BACK", "RETENTION", "TOKEN_MAX_AGE"}
_MOST = {"MAX_ATTEMPTS": 1000, "MAX_TAG_LENGTH": 255, "MAX_STREAM_KEY_LENGTH": 255}
_MAY_BE_ZERO = {"SHUTDOWN_GRACE_SECONDS", "METADATA_FLUSH_SECONDS", "BELL_SECONDS", "LINGER_SECONDS"}


@register("realtime_runs")
def check_settings(app_configs: Any, **kwargs: Any) -> Sequence[CheckMessage]:
    user = getattr(settings, "REALTIME_RUNS", {})
    if not isinstance(user, dict):
        return [
            Error(
                "REALTIME_RUNS is not a dict.",
                hint='Write REALTIME_RUNS = {"CONCURRENCY": 200}.',
                id="realtime_runs.E001",
            )
        ]
    found: list[CheckMessage] = []
    for name in user:
        if name not in DEFAULTS:
            found.append(
                Error(
                    f"REALTIME_RUNS has no setting {name!r}.",
                    hint=f"Remove it, or use one of: {', '.join(DEFAULTS)}.",
                    id="realtime_runs.E001",
                )
            )
        elif problem := _problem(name, user[name]):
            found.append(
                Error(
                    f"REALTIME_RUNS[{name!r}] is {'wrong' if name == 'SECRET_KEYS' else repr(user[name])}: {problem}.",
                    hint=f"The default is {DEFAULTS[name]!r}.",
                    id="realtime_runs.E002",
                )
            )
    return found


def _problem(name: str, value: Any) -> str | None:
    default = DEFAULTS[name]
    if name in _DURATIONS:
        try:
            if not parse_duration(value, name) and name == "TOKEN_MAX_AGE":
                return "it must be more than nothing"
        except InvalidOption as error:
            return str(error).rstrip(".")
    elif name == "SECRET_KEYS":
        if not isinstance(value, list | tuple):
            return "it must be a list of texts"
        for position, key in enumerate(value):
            if problem := what_is_wrong_with(key):
                return f"the one at position {position} {problem}"
    elif isinstance(default, str):
        if not isinstance(value, str):
            return "it must be a text"
    elif isinstance(value, bool) or not isinstance(
        value, int if isinstance(default, int) and not name.endswith("_SECONDS") else int | float
    ):
        return "it must be a whole number" if not name.endswith("_SECONDS") else "it must be a number of seconds"
    elif name in _MOST and value > _MOST[name]:
        return f"at most {_MOST[name]} is possible"
    elif not 0 <= value < math.inf or (value == 0 and name not in _MAY_BE_ZERO):
        return "it must be positive"
    return None


@register("realtime_runs")
def check_backend(app_configs: Any, **kwargs: Any) -> Sequence[CheckMessage]:
    try:
        get_backend()
    except Exception as error:
        return [
            Error(
                f"REALTIME_RUNS['BACKEND'] cannot be used: {error}",
                hint=f'Write "BACKEND": {DEFAULTS["BACKEND"]!r}, or leave it out.',
                id="realtime_runs.E003",
            )
        ]
    return []


@register("realtime_runs")
def check_policy(app_configs: Any, **kwargs: Any) -> Sequence[CheckMessage]:
    user = getattr(settings, "REALTIME_RUNS", {})
    path = user.get("POLICY", DEFAULTS["POLICY"]) if isinstance(user, dict) else None
    if not isinstance(path, str):
        return []  # E001 or E002
    try:
        found = import_string(path)
        problem = None if isinstance(found, type) and issubclass(found, Policy) else "it is no subclass of Policy"
    except Exception as error:
        problem = str(error)
    if problem is None:
        return []
    return [
        Error(
            f"REALTIME_RUNS['POLICY'] cannot be used: {problem}",
            hint=f'Derive a class from {DEFAULTS["POLICY"]}, and write "POLICY": "yourapp.policy.YourClass".',
            id="realtime_runs.E008",
        )
    ]


@register("realtime_runs")
def check_tasks(app_configs: Any, **kwargs: Any) -> Sequence[CheckMessage]:
    found = []
    for task in registry.all_tasks():
        try:
            task.check_types()
        except Exception as error:
            found.append(
                Error(
                    f"The annotations of task {task.id!r} cannot be used: {error}",
                    hint="Use types that pydantic knows: models, dataclasses, TypedDicts, builtins.",
                    obj=task.function,
                    id="realtime_runs.E004",
                )
            )
    return found


@register("realtime_runs")
def check_time_zone(app_configs: Any, **kwargs: Any) -> Sequence[CheckMessage]:
    if settings.USE_TZ:
        return []
    return [
        Error(
            "USE_TZ is off: times would be stored in local time, but due times and leases are compared with UTC.",
            hint="Set USE_TZ = True, which is Django's default.",
            id="realtime_runs.E007",
        )
    ]


@register("realtime_runs")
def check_layer(app_configs: Any, **kwargs: Any) -> Sequence[CheckMessage]:
    user = getattr(settings, "REALTIME_RUNS", {})
    alias = user.get("CHANNEL_LAYER", DEFAULTS["CHANNEL_LAYER"]) if isinstance(user, dict) else None
    if not isinstance(alias, str):
        return []  # E001 or E002
    if alias != "default" and alias not in getattr(settings, "CHANNEL_LAYERS", {}):
        return [
            Error(
                f"REALTIME_RUNS['CHANNEL_LAYER'] is {alias!r}, which is not in CHANNEL_LAYERS.",
                hint=f"Add {alias!r} to CHANNEL_LAYERS.",
                id="realtime_runs.E006",
            )
        ]
    layer = get_channel_layer(alias)
    if isinstance(layer, InMemoryChannelLayer) and not settings.DEBUG:
        return [
            Warning(
                "The in-memory channel layer reaches no other process; readers there see changes by polling only.",
                hint='Use "channels_redis.pubsub.RedisPubSubChannelLayer", or remove CHANNEL_LAYERS for one process.',
                id="realtime_runs.W001",
            )
        ]
    return []


@register(Tags.database, "realtime_runs")
def check_database(app_configs: Any, databases: Sequence[str] | None = None, **kwargs: Any) -> Sequence[CheckMessage]:
    found: list[CheckMessage] = []
    connection = connections["default"]
    if connection.vendor not in ("sqlite", "postgresql"):
        found.append(
            Error(
                f"realtime_runs runs on SQLite and PostgreSQL, not on {connection.vendor}.",
                hint="Use PostgreSQL for the default database.",
                id="realtime_runs.E005",
            )
        )
    options = connection.settings_dict.get("OPTIONS", {})
    if connection.vendor == "sqlite" and str(options.get("transaction_mode", "")).upper() != "IMMEDIATE":
        found.append(
            Warning(
                "SQLite without IMMEDIATE transactions fails with 'database is locked' as soon as two threads write.",
                hint='Set OPTIONS to {"transaction_mode": "IMMEDIATE", "timeout": 20, '
                '"init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"}.',
                id="realtime_runs.W002",
            )
        )
    return found
