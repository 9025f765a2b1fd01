"""Who may look at things in the admin, and who may change the course of a run there.

Django's permissions and the project's policy must both agree. A permission counts when a user has it for all objects
or, by an authentication backend that knows such, for this one.
"""

from typing import Any

from django.contrib.auth import get_permission_codename
from django.http import HttpRequest

from realtime_runs.access.policy import Action, get_policy
from realtime_runs.models import Run


class ReadOnly:
    """Whoever has the view permission, and whom the policy lets read, may look; nobody may change."""

    opts: Any

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        granted = super().has_view_permission(request, obj) or self._is_granted(request, "view", obj)  # type: ignore[misc]
        return granted and get_policy().can(request.user, "read", obj if isinstance(obj, Run) else None)

    def _is_granted(self, request: HttpRequest, action: str, obj: Any) -> bool:
        """By a permission for this object; those for all objects are Django's own business."""
        name = f"{self.opts.app_label}.{get_permission_codename(action, self.opts)}"
        return obj is not None and request.user.has_perm(name, obj)


class Steered(ReadOnly):
    """For runs: who has the change permission may do what the policy allows. No field can be edited."""

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super(ReadOnly, self).has_change_permission(request, obj) or self._is_granted(request, "change", obj)  # type: ignore[misc]

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_view_permission(request, obj) or (
            self._is_granted(request, "change", obj) and get_policy().can(request.user, "read", obj)
        )

    def may(self, request: HttpRequest, action: Action, run: Run) -> bool:
        """Whether the user may do this to the run. (A wait token belongs to no single run: see `Policy.can`.)"""
        return (
            self.has_view_permission(request, run)
            and self.has_change_permission(request, run)
            and get_policy().can(request.user, action, None if action == "complete" else run)
        )
