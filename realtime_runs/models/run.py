from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Self

from django.db import models
from django.db.models import F, Q

from realtime_runs.ids import ID_LENGTH, is_possible, new_run_id
from realtime_runs.models.batch import Batch
from realtime_runs.models.clock import FromNow
from realtime_runs.models.returning import Change, update_returning
from realtime_runs.models.tag import RunTag, Tag
from realtime_runs.packets import JSON, Packet
from realtime_runs.statuses import ENTERED_FROM, FINAL, LEASED, UNFINISHED, RunStatus

# Statuses as plain text: constraints and index conditions are compared with migrations, where an enum does not belong.
_QUEUED = RunStatus.QUEUED.value
_LEASED = sorted(status.value for status in LEASED)
_FINAL = sorted(status.value for status in FINAL)


_KEY_START = 64  # characters


class KeyStart(models.Func):
    """The first characters of an idempotency key. Their number is no parameter, or SQLite would not see its index."""

    template = f"SUBSTR(%(expressions)s, 1, {_KEY_START})"
    output_field = models.TextField()
    arity = 1


class RunQuerySet(models.QuerySet["Run"]):
    """Queries named after what they find; no caller spells a condition on `status`."""

    def find(self, run_id: str) -> "Run | None":
        """The run of this id, if it is among these."""
        return next(iter(self.with_id(run_id)), None)  # `first()` would sort it, which takes a third longer

    def with_id(self, run_id: str) -> Self:
        """The one of an id that may be anything."""
        return self.filter(pk=run_id) if is_possible(run_id) else self.none()

    def without_packets(self) -> Self:
        """Payload and output, which may be megabytes, are read when they are asked for."""
        return self.defer("payload", "output")

    def ready(self) -> Self:
        """Queued runs whose time has come, in the order in which workers should take them."""
        return (
            self.filter(status=RunStatus.QUEUED, run_at__lte=FromNow())
            .exclude(expires_at__lte=FromNow())
            .order_by("rank", "id")
        )

    def due(self) -> Self:
        """Delayed runs that should be queued now."""
        return self.filter(status=RunStatus.DELAYED, delayed_until__lte=FromNow())

    def expired(self) -> Self:
        """Queued runs that were not started within their ttl."""
        return self.filter(status=RunStatus.QUEUED, expires_at__lte=FromNow())

    def stalled(self) -> Self:
        """Runs whose worker has not renewed its lease in time."""
        return self.filter(lease_until__lte=FromNow())

    def queued_longer_than(self, seconds: float) -> Self:
        return self.filter(status=RunStatus.QUEUED, run_at__lte=FromNow(-seconds))

    def leased(self, run_id: str, attempt: int, token: str) -> Self:
        """The run, while this lease holds. A constraint says that only EXECUTING and WAITING runs have a token."""
        return self.filter(pk=run_id, attempt=attempt, lease_token=token)

    def with_hook_due(self) -> Self:
        """Final runs whose hook nobody has run yet."""
        return self.filter(hook_at__lte=FromNow())

    def final(self) -> Self:
        return self.filter(status__in=FINAL)

    def unfinished(self) -> Self:
        return self.filter(status__in=UNFINISHED)

    def tagged(self, names: Iterable[str]) -> Self:
        """Runs that carry all of these tags."""
        found = self
        for name in names:
            found = found.filter(tags=name)
        return found

    def with_idempotency_key(self, key: str) -> Self:
        """Runs that show this key, also those that do not hold it any more."""
        found = self.alias(key_start=KeyStart("idempotency_key")).filter(key_start=key[:_KEY_START])
        # With `=`, SQLite would put the key into SUBSTR too, and not see its index.
        return found.exclude(idempotency_key="").filter(idempotency_key__gte=key, idempotency_key__lte=key)

    def failed_since(self, at: datetime) -> Self:
        """Runs that ended with an error since then, newest first."""
        return self.exclude(error="").filter(finished_at__gte=at).order_by("-finished_at")

    def tagged_any(self, names: Sequence[str]) -> Self:
        return self.filter(pk__in=RunTag.objects.filter(tag__in=names).values("run"))

    def move(self, to: RunStatus, **values: Any) -> list[Change]:
        """Enter `to` where the table of moves allows it; the WHERE clause is the lock. Returns the runs that moved."""
        return self.that_may_enter(to).touch(status=to, **values)

    def that_may_enter(self, to: RunStatus) -> Self:
        return self.filter(status__in=ENTERED_FROM[to])

    def touch(self, **values: Any) -> list[Change]:
        """Change rows so that followers notice: the version rises in the same statement. Returns the runs changed."""
        return update_returning(self, touched(**values))


def touched(**values: Any) -> dict[str, Any]:
    """New values of a row, with those that make followers notice."""
    return {"version": F("version") + 1, "updated_at": FromNow(), **values}


class Run(models.Model):
    """One execution of a task. The row is the truth and, while queued, the queue entry.

    Bells and dispatches are hints.
    """

    id = models.CharField(max_length=ID_LENGTH, primary_key=True, default=new_run_id, editable=False)
    task = models.CharField(max_length=255)
    status = models.CharField(max_length=16, choices=RunStatus.choices)
    version = models.PositiveBigIntegerField(default=1, help_text="+1 at every change")

    payload = models.TextField(null=True, help_text="verbatim text; null when there is none")  # noqa: DJ001 no payload is not an empty one
    payload_type = models.CharField(max_length=64, default=JSON)
    output = models.TextField(null=True)  # noqa: DJ001 no output is not an empty one
    output_type = models.CharField(max_length=64, default=JSON)
    error = models.TextField(default="", blank=True, help_text="JSON {name, message, stack_trace}; empty without error")
    metadata = models.TextField(default="{}", help_text="JSON object")
    tag_names = models.JSONField(default=list, blank=True, help_text="sorted; RunTag is the index for finding")
    realtime_streams = models.JSONField(default=list, blank=True, help_text="keys of the output streams, in order")
    tags = models.ManyToManyField(Tag, through=RunTag, related_name="runs")

    batch = models.ForeignKey(Batch, models.CASCADE, null=True, blank=True, related_name="runs", db_index=False)
    batch_index = models.PositiveIntegerField(null=True, blank=True, help_text="place in the batch, from 0")
    # Not enforced: a parent may be pruned before its children.
    parent = models.ForeignKey(
        "self", models.DO_NOTHING, null=True, blank=True, related_name="children", db_constraint=False, db_index=False
    )
    root = models.ForeignKey(
        "self", models.DO_NOTHING, null=True, blank=True, related_name="+", db_constraint=False, db_index=False
    )
    depth = models.PositiveIntegerField(default=0, help_text="how many runs are above this one")
    trigger_function = models.CharField(max_length=32, default="trigger")
    is_test = models.BooleanField(default=False)
    idempotency_key = models.TextField(default="", blank=True, help_text="as the user wrote it")

    queue = models.CharField(max_length=255, default="default")
    concurrency_key = models.CharField(max_length=255, default="", blank=True)
    priority = models.FloatField(default=0, help_text="seconds of head start in the queue")
    max_attempts = models.PositiveIntegerField(default=1)
    max_duration = models.FloatField(null=True, blank=True, help_text="seconds of executing, waiting not counted")
    ttl = models.CharField(max_length=64, default="", blank=True, help_text="as the user wrote it")

    attempt = models.PositiveIntegerField(default=0, help_text="attempts begun")
    lease_token = models.CharField(max_length=32, default="", blank=True, help_text="who may write for the run")
    lease_until = models.DateTimeField(null=True, blank=True)

    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    run_at = models.DateTimeField(help_text="not to be started before")
    rank = models.DateTimeField(help_text="place in the queue: run_at minus the priority")
    delayed_until = models.DateTimeField(null=True, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True, help_text="end of the ttl; null once started")
    queued_at = models.DateTimeField(null=True, blank=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    expired_at = models.DateTimeField(null=True, blank=True)
    hook_at = models.DateTimeField(
        null=True, blank=True, help_text="when the hook of its end may be run; null: nothing to do"
    )

    objects = RunQuerySet.as_manager()

    class Meta:
        db_table = "realtime_runs_run"
        constraints = [
            models.CheckConstraint(condition=Q(status__in=RunStatus.values), name="run_status_is_known"),
            models.CheckConstraint(
                condition=Q(status__in=_FINAL, finished_at__isnull=False)
                | (~Q(status__in=_FINAL) & Q(finished_at__isnull=True)),
                name="run_is_finished_when_final",
            ),
            models.CheckConstraint(
                condition=(Q(status__in=_LEASED) & ~Q(lease_token="") & Q(lease_until__isnull=False))
                | (~Q(status__in=_LEASED) & Q(lease_token="", lease_until__isnull=True)),
                name="run_is_leased_while_executing",
            ),
            models.CheckConstraint(
                condition=~Q(status="DELAYED") | Q(delayed_until__isnull=False), name="run_delayed_has_time"
            ),
        ]
        indexes = [
            # ready(): small, because queued runs are few.
            models.Index(fields=["status", "rank", "id"], name="run_ready_idx", condition=Q(status=_QUEUED)),
            models.Index(fields=["status", "delayed_until"], name="run_due_idx", condition=Q(status="DELAYED")),
            models.Index(
                fields=["status", "expires_at"],
                name="run_expired_idx",
                condition=Q(status=_QUEUED, expires_at__isnull=False),
            ),
            models.Index(fields=["lease_until"], name="run_stalled_idx", condition=Q(lease_until__isnull=False)),
            models.Index(fields=["task", "hook_at"], name="run_hook_idx", condition=Q(hook_at__isnull=False)),
            models.Index(fields=["batch", "batch_index"], name="run_batch_idx", condition=Q(batch__isnull=False)),
            models.Index(fields=["parent"], name="run_parent_idx", condition=Q(parent__isnull=False)),
            models.Index(fields=["finished_at"], name="run_prune_idx", condition=Q(finished_at__isnull=False)),
            models.Index(fields=["updated_at"], name="run_updated_idx"),  # the backstop of tag and batch feeds
            models.Index(fields=["created_at"], name="run_created_idx"),
            models.Index(fields=["status", "id"], name="run_status_idx"),
            models.Index(fields=["task", "id"], name="run_task_idx"),
            # What people search for. A whole key may be longer than an index of PostgreSQL takes.
            models.Index(KeyStart("idempotency_key"), "id", name="run_key_idx", condition=~Q(idempotency_key="")),
            models.Index(fields=["finished_at"], name="run_failed_idx", condition=~Q(error="")),  # failed_since()
        ]

    def __str__(self) -> str:
        return f"{self.id} ({self.task}, {self.status})"

    @property
    def is_final(self) -> bool:
        return self.status in FINAL

    @property
    def payload_packet(self) -> Packet:
        return Packet(self.payload, self.payload_type)

    @property
    def output_packet(self) -> Packet:
        return Packet(self.output, self.output_type)
