from django.db import models

from realtime_runs.ids import ID_LENGTH, new_batch_id


class Batch(models.Model):
    """Runs that were made together, in one transaction."""

    id = models.CharField(max_length=ID_LENGTH, primary_key=True, default=new_batch_id, editable=False)
    run_count = models.PositiveIntegerField()
    created_at = models.DateTimeField()

    class Meta:
        db_table = "realtime_runs_batch"
        verbose_name_plural = "batches"
        indexes = [models.Index(fields=["created_at"], name="batch_created_idx")]  # pruning empty batches

    def __str__(self) -> str:
        return self.id
