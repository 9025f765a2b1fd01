"""The one place that reads `settings.REALTIME_RUNS`, and only when asked, so that overridden settings take effect.

Every key has a row in docs/reference/settings.md; `checks` reports unknown keys and wrong values.
"""

from collections.abc import Mapping
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.utils.functional import cached_property

DEFAULTS: Final[Mapping[str, Any]] = {
    # who executes
    "BACKEND": "realtime_runs.engine.backends.embedded.EmbeddedBackend",
    "CONCURRENCY": 200,  # async runs at once in one worker process
    "SYNC_CONCURRENCY": 8,  # sync runs (threads) at once in one worker process
    "POLL_SECONDS": 0.5,  # how often a worker looks for work nobody rang a bell for
    "LEASE_SECONDS": 30,  # a worker not heard of for so long has lost its runs
    "LOOP_STALL_SECONDS": 60,  # an event loop blocked for so long gives up its leases
    "SHUTDOWN_GRACE_SECONDS": 10,  # running work may go on for so long after SIGTERM
    "UNKNOWN_TASK_GRACE_SECONDS": 300,  # a queued run whose task nobody knows fails after that
    # defaults of triggering
    "MAX_ATTEMPTS": 3,
    "IDEMPOTENCY_KEY_TTL": "30d",
    # limits
    "MAX_PAYLOAD_BYTES": 3 * 1024 * 1024,
    "MAX_OUTPUT_BYTES": 10 * 1024 * 1024,
    "MAX_METADATA_BYTES": 256 * 1024,
    "MAX_CHUNK_BYTES": 512 * 1024,
    "MAX_INPUT_BYTES": 1024 * 1024,
    "MAX_STREAM_KEY_LENGTH": 255,
    "MAX_JSON_DEPTH": 100,
    "MAX_TAGS": 10,
    "MAX_TAG_LENGTH": 128,
    "MAX_BATCH_ITEMS": 1000,
    "MAX_IDEMPOTENCY_KEY_LENGTH": 2048,
    # streams
    "APPEND_BACKLOG_BYTES": 64 * 1024 * 1024,  # chunks of a process that wait for their commit; beyond, writers wait
    "STREAM_TIMEOUT_SECONDS": 60,  # a reader that gets nothing for so long gives up
    # live
    "METADATA_FLUSH_SECONDS": 0.1,  # metadata set in a run is written at most so often
    "CHANNEL_LAYER": "default",  # alias in CHANNEL_LAYERS that carries bells between processes
    "BELL_SECONDS": 0.05,  # bells of one topic are joined for so long before they go to other processes
    "BACKSTOP_SECONDS": 0.5,  # how often followed topics are re-read where no layer carries bells
    "BACKSTOP_WITH_LAYER_SECONDS": 5,  # the same where one does: the longest a lost bell delays a reader
    "LINGER_SECONDS": 30,  # a topic stays joined for so long after its last reader left
    "FEED_LOOK_BACK": "24h",  # how old a run may be to be in the first list of a tag subscription
    "FEED_MAX_RUNS": 1000,  # how many runs that first list holds at most
    # access
    "SECRET_KEYS": [],  # API keys: the first signs tokens, all verify; none: one derived from Django's SECRET_KEY
    "TOKEN_MAX_AGE": "30d",  # a public token that is valid for longer is refused
    "POLICY": "realtime_runs.access.policy.Policy",  # what logged-in users of the site may do
    # http
    "LONG_POLL_SECONDS": 20,  # how long a run subscription waits for a change before it answers
    "PING_SECONDS": 15,  # after so much silence an event stream gets a comment, so that proxies keep it open
    "SOCKET_PING_SECONDS": 25,  # the same for a WebSocket, whose client has as long to answer
    # housekeeping
    "RETENTION": "30d",  # age at which `runs_prune` removes a final run
}


class AppSettings:
    """`app_settings.LEASE_SECONDS` is the user's value, or the default. An unknown name raises ImproperlyConfigured."""

    @cached_property
    def _user(self) -> Mapping[str, Any]:
        user = getattr(settings, "REALTIME_RUNS", {})
        if not isinstance(user, Mapping):
            raise ImproperlyConfigured("REALTIME_RUNS must be a dict.")
        return user

    def __getattr__(self, name: str) -> Any:
        if name not in DEFAULTS:
            raise ImproperlyConfigured(f"REALTIME_RUNS has no setting {name!r}.")
        return self._user.get(name, DEFAULTS[name])

    def reload(self) -> None:
        self.__dict__.pop("_user", None)


app_settings = AppSettings()


@receiver(setting_changed)
def _reload(*, setting: str, **kwargs: Any) -> None:
    if setting == "REALTIME_RUNS":
        app_settings.reload()
