from django.db import models


class IdempotencyClaim(models.Model):
    """Which run holds an idempotency key of a task.

    Of two claims in one moment the unique constraint lets one through.
    """

    task = models.CharField(max_length=255)
    key_hash = models.CharField(max_length=64, help_text="SHA-256 of the key, in hex")
    # Deferred: the claim is taken before the run it names is inserted, in the same transaction.
    run = models.ForeignKey("realtime_runs.Run", models.CASCADE, related_name="+")
    expires_at = models.DateTimeField()

    class Meta:
        db_table = "realtime_runs_idempotency_claim"
        constraints = [models.UniqueConstraint(fields=["task", "key_hash"], name="idempotency_key_once_per_task")]

    def __str__(self) -> str:
        return f"{self.task} {self.key_hash[:12]}"
