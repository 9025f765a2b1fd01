"""What the users of the Django project may do: the hook REALTIME_RUNS["POLICY"] decides."""

from typing import Any, Literal

from django.db.models import QuerySet
from django.utils.module_loading import import_string

from realtime_runs.conf import app_settings
from realtime_runs.models import Run

Action = Literal[
    "read", "trigger", "cancel", "replay", "reschedule", "edit", "send", "write", "complete", "wait_tokens", "tokens"
]


class Policy:
    """The default: active staff may do everything, others nothing. Derive from it and name your class in
    REALTIME_RUNS["POLICY"].

        class OwnRuns(Policy):
            def can(self, user, action, run):
                if run is None:
                    return action == "read"  # lists and feeds, of which `visible` keeps some
                return f"user:{user.pk}" in run.tag_names

            def visible(self, user, runs):
                return runs.tagged([f"user:{user.pk}"])

    It is asked for requests with a session cookie, never for tokens or keys. Both methods may query the database.
    """

    def can(self, user: Any, action: Action, run: Run | None) -> bool:
        """Whether a logged-in user may do this. `run` is None where the action is about no single run, or one that does
        not exist: `trigger`, `read` of lists, feeds and batches, `wait_tokens` (create, list, retrieve), `complete`,
        and `tokens`, with which public tokens of any scope are made.
        """
        return bool(user.is_active and user.is_staff)

    def visible(self, user: Any, runs: "QuerySet[Run]") -> "QuerySet[Run]":
        """Those of the runs that the user may see, in lists and feeds."""
        return runs if self.can(user, "read", None) else runs.none()


def get_policy() -> Policy:
    policy: Policy = import_string(app_settings.POLICY)()
    return policy
