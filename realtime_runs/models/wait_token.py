from collections.abc import Iterable
from datetime import timedelta
from typing import Final, Self

from django.db import models
from django.db.models import Q, TextChoices

from realtime_runs.ids import ID_LENGTH, new_wait_token_id
from realtime_runs.models.clock import FromNow
from realtime_runs.packets import JSON, Packet


class WaitTokenStatus(TextChoices):
    WAITING = "WAITING"
    COMPLETED = "COMPLETED"  # somebody completed it in time
    TIMED_OUT = "TIMED_OUT"


_WAITING: Final = WaitTokenStatus.WAITING.value
_COMPLETED: Final = WaitTokenStatus.COMPLETED.value
_TIMED_OUT: Final = WaitTokenStatus.TIMED_OUT.value


class WaitTokenQuerySet(models.QuerySet["WaitToken"]):
    def open(self) -> Self:
        """Tokens that can still be completed."""
        return self.filter(status=_WAITING, timeout_at__gt=FromNow())

    def overdue(self) -> Self:
        """Tokens whose time is up and that do not say so yet."""
        return self.filter(status=_WAITING, timeout_at__lte=FromNow())

    def tagged_any(self, names: Iterable[str]) -> Self:
        return self.filter(pk__in=WaitTokenTag.objects.filter(name__in=names).values("token"))

    def settled_before(self, age: timedelta) -> Self:
        """Tokens that nobody can have waited for since then."""
        return self.filter(Q(status=_COMPLETED) | Q(status=_TIMED_OUT), timeout_at__lt=FromNow(-age))


class WaitToken(models.Model):
    """Something that a run can wait for, and that anybody who knows its id can complete, once."""

    id = models.CharField(max_length=ID_LENGTH, primary_key=True, default=new_wait_token_id, editable=False)
    status = models.CharField(max_length=16, choices=WaitTokenStatus.choices, default=_WAITING)
    tag_names = models.JSONField(default=list, blank=True, help_text="sorted; WaitTokenTag is the index for finding")
    output = models.TextField(null=True)  # noqa: DJ001 no output is not an empty one
    output_type = models.CharField(max_length=64, default=JSON)
    idempotency_key = models.TextField(default="", blank=True, help_text="as the user wrote it")
    key_hash = models.CharField(
        max_length=64, default="", blank=True, help_text="SHA-256 of the key, in hex; empty once it is free again"
    )
    key_expires_at = models.DateTimeField(null=True, blank=True, help_text="when the key is free again")
    created_at = models.DateTimeField()
    timeout_at = models.DateTimeField()
    completed_at = models.DateTimeField(null=True, blank=True)

    objects = WaitTokenQuerySet.as_manager()

    class Meta:
        db_table = "realtime_runs_wait_token"
        constraints = [
            models.CheckConstraint(condition=Q(status__in=WaitTokenStatus.values), name="wait_token_status_is_known"),
            models.CheckConstraint(
                condition=Q(status=_COMPLETED, completed_at__isnull=False)
                | (~Q(status=_COMPLETED) & Q(completed_at__isnull=True)),
                name="wait_token_completed_has_time",
            ),
            models.UniqueConstraint(fields=["key_hash"], name="wait_token_key_once", condition=~Q(key_hash="")),
        ]
        indexes = [
            # overdue(), and settled_before() for the others
            models.Index(fields=["status", "timeout_at"], name="wait_token_timeout_idx"),
        ]

    def __str__(self) -> str:
        return f"{self.id} ({self.status})"

    @property
    def output_packet(self) -> Packet:
        return Packet(self.output, self.output_type)


class WaitTokenTag(models.Model):
    """Which token carries which tag, for finding them."""

    token = models.ForeignKey(WaitToken, models.CASCADE, related_name="+", db_index=False)
    name = models.CharField(max_length=255)

    class Meta:
        db_table = "realtime_runs_wait_token_tag"
        constraints = [models.UniqueConstraint(fields=["token", "name"], name="wait_token_tag_once")]
        indexes = [models.Index(fields=["name", "token"], name="wait_token_by_tag_idx")]

    def __str__(self) -> str:
        return f"{self.token_id} {self.name}"
