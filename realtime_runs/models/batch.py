from django.db import models
from django.db.models import Q

from realtime_runs.ids import ID_LENGTH, new_batch_id
from realtime_runs.packets import JSON


class Batch(models.Model):
    """Runs that are made together, in one transaction. A batch that is open still collects its items."""

    id = models.CharField(max_length=ID_LENGTH, primary_key=True, default=new_batch_id, editable=False)
    run_count = models.PositiveIntegerField(help_text="of an open batch: how many items it waits for")
    created_at = models.DateTimeField()
    is_open = models.BooleanField(default=False, help_text="its runs are made when all items are there")
    parent_id = models.CharField(max_length=ID_LENGTH, default="", blank=True, help_text="run that its runs belong to")
    task_ids = models.JSONField(default=list, blank=True, help_text="what its items may be of, sorted; none: anything")
    idempotency_key = models.TextField(default="", blank=True, help_text="as the user wrote it")
    key_hash = models.CharField(max_length=64, default="", blank=True, help_text="SHA-256 of key and tasks, in hex")

    class Meta:
        db_table = "realtime_runs_batch"
        verbose_name_plural = "batches"
        constraints = [models.UniqueConstraint(fields=["key_hash"], name="batch_key_once", condition=~Q(key_hash=""))]
        indexes = [models.Index(fields=["created_at"], name="batch_created_idx")]  # pruning empty batches

    def __str__(self) -> str:
        return self.id


class BatchItem(models.Model):
    """An item of an open batch, as it was sent (wire-protocol 4.3). Gone once the runs are made."""

    batch = models.ForeignKey(Batch, models.CASCADE, related_name="items", db_index=False)
    index = models.PositiveIntegerField(help_text="place in the batch, from 0")
    task = models.CharField(max_length=255)
    payload = models.TextField(null=True)  # noqa: DJ001 no payload is not an empty one
    payload_type = models.CharField(max_length=64, default=JSON)
    options = models.TextField(default="{}", help_text="JSON object: the options of a trigger")

    class Meta:
        db_table = "realtime_runs_batch_item"
        constraints = [models.UniqueConstraint(fields=["batch", "index"], name="batch_item_once")]

    def __str__(self) -> str:
        return f"{self.batch_id} {self.index}"
