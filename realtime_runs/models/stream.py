from typing import Final, NamedTuple

from django.db import models
from django.db.models import Q

OUTPUT: Final = "output"
INPUT: Final = "input"

APPEND: Final = "append"
RESTART: Final = "restart"


class StreamName(NamedTuple):
    """Which stream of which run."""

    run_id: str
    kind: str  # OUTPUT or INPUT
    key: str


class Stream(models.Model):
    """A named log of a run. Its row lock gives out the indexes, so chunks become visible in their order."""

    run = models.ForeignKey("realtime_runs.Run", models.CASCADE, related_name="streams", db_index=False)
    kind = models.CharField(max_length=8, choices=[(OUTPUT, OUTPUT), (INPUT, INPUT)])
    key = models.CharField(max_length=255)
    content_type = models.CharField(max_length=64, default="application/json", help_text="of every chunk")
    next_index = models.PositiveBigIntegerField(default=0, help_text="of the chunk to come; how many there were")
    first_index = models.PositiveBigIntegerField(default=0, help_text="of the first chunk that is kept")
    attempt = models.PositiveIntegerField(default=0, help_text="the newest attempt that wrote")
    on_retry = models.CharField(max_length=8, default=APPEND, choices=[(APPEND, APPEND), (RESTART, RESTART)])
    restart_index = models.PositiveBigIntegerField(
        default=0, help_text="where the newest attempt began, if it restarts"
    )
    consumed = models.PositiveBigIntegerField(default=0, help_text="input: how many records the task has taken")
    created_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True, blank=True)
    closed_by = models.PositiveIntegerField(default=0, help_text="attempt that closed it; 0: nobody, or from outside")
    end_reason = models.CharField(max_length=16, default="", blank=True, help_text="empty while it is open")

    class Meta:
        db_table = "realtime_runs_stream"
        constraints = [
            models.UniqueConstraint(fields=["run", "kind", "key"], name="stream_once_per_run"),
            models.CheckConstraint(
                condition=Q(closed_at=None, end_reason="") | (Q(closed_at__isnull=False) & ~Q(end_reason="")),
                name="stream_says_why_it_is_closed",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.run_id} {self.key}"

    @property
    def name(self) -> StreamName:
        return StreamName(self.run_id, self.kind, self.key)


class StreamChunk(models.Model):
    """One item of a stream, encoded once: every reader gets these bytes."""

    # Not enforced: a check for each of many thousand rows, which the lock on the stream's row makes needless.
    stream = models.ForeignKey(Stream, models.CASCADE, related_name="chunks", db_index=False, db_constraint=False)
    index = models.PositiveBigIntegerField(help_text="from 0, without gaps")
    data = models.BinaryField()
    record_id = models.CharField(max_length=255, default="", blank=True, help_text="as a client gave it")
    producer = models.CharField(max_length=64, help_text="who wrote it, so that a repetition is known")
    sequence = models.PositiveBigIntegerField(help_text="the producer's number of it")
    attempt = models.PositiveIntegerField(default=0, help_text="of the run that wrote it; 0: written from outside")
    created_at = models.DateTimeField()

    class Meta:
        db_table = "realtime_runs_stream_chunk"
        constraints = [
            models.UniqueConstraint(fields=["stream", "index"], name="chunk_index_once_per_stream"),
            models.UniqueConstraint(fields=["stream", "producer", "sequence"], name="chunk_once_per_producer"),
            models.UniqueConstraint(
                fields=["stream", "record_id"], name="chunk_record_once", condition=~Q(record_id="")
            ),
        ]

    def __str__(self) -> str:
        return f"{self.stream_id} {self.index}"
