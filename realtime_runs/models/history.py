"""What happened to a run: its tries, and its way through the statuses."""

from django.db import models

from realtime_runs.statuses import RunStatus


class Attempt(models.Model):
    """One try of a run by one worker."""

    run = models.ForeignKey("realtime_runs.Run", models.CASCADE, related_name="attempts", db_index=False)
    number = models.PositiveIntegerField(help_text="from 1")
    worker = models.CharField(max_length=128, help_text="host:pid of the process that ran it")
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)
    error = models.TextField(default="", blank=True, help_text="JSON {name, message, stack_trace}; empty without error")

    class Meta:
        db_table = "realtime_runs_attempt"
        constraints = [models.UniqueConstraint(fields=["run", "number"], name="attempt_number_once_per_run")]

    def __str__(self) -> str:
        return f"{self.run_id} attempt {self.number}"


class RunEvent(models.Model):
    """A run entered a status. Rows of one run are written under its row lock, so their ids are in order."""

    run = models.ForeignKey("realtime_runs.Run", models.CASCADE, related_name="events", db_index=False)
    status = models.CharField(max_length=16, choices=RunStatus.choices)
    attempt = models.PositiveIntegerField(help_text="how many attempts had begun")
    at = models.DateTimeField()

    class Meta:
        db_table = "realtime_runs_event"
        indexes = [models.Index(fields=["run", "id"], name="event_of_run_idx")]

    def __str__(self) -> str:
        return f"{self.run_id} {self.status}"
