from django.db import models


class Tag(models.Model):
    """A label that runs carry. The name is the key: nothing else is known about a tag."""

    name = models.CharField(max_length=255, primary_key=True)
    created_at = models.DateTimeField()

    class Meta:
        db_table = "realtime_runs_tag"

    def __str__(self) -> str:
        return self.name


class RunTag(models.Model):
    """Which run carries which tag. `Run.tag_names` repeats the names, so that reading a run is one row."""

    run = models.ForeignKey("realtime_runs.Run", models.CASCADE, related_name="+", db_index=False)
    # Not enforced: pruning may remove a tag that nobody carried in the moment before somebody took it up again.
    tag = models.ForeignKey(Tag, models.DO_NOTHING, related_name="+", db_index=False, db_constraint=False)

    class Meta:
        db_table = "realtime_runs_run_tag"
        constraints = [models.UniqueConstraint(fields=["run", "tag"], name="run_tag_once")]
        indexes = [models.Index(fields=["tag", "run"], name="run_tag_by_tag_idx")]  # runs with a tag, newest last

    def __str__(self) -> str:
        return f"{self.run_id} {self.tag_id}"
