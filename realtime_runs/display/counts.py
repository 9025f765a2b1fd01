"""How many runs of a batch are over."""

from dataclasses import dataclass
from typing import Self

from django.db.models import Count

from realtime_runs.engine.triggering import get_batch
from realtime_runs.models import Run
from realtime_runs.statuses import FINAL, RunStatus


@dataclass(frozen=True, slots=True)
class BatchCounts:
    """`failed`: ended in any way but COMPLETED or CANCELED. `total` of an open batch: the runs that it waits for."""

    total: int
    finished: int
    failed: int
    canceled: int

    @classmethod
    def of(cls, batch_id: str) -> Self:
        """Raises BatchNotFound."""
        batch = get_batch(batch_id)
        rows = Run.objects.filter(batch=batch).order_by().values_list("status").annotate(Count("pk"))
        counts = {status: count for status, count in rows if status in FINAL}
        canceled = counts.get(RunStatus.CANCELED, 0)
        finished = sum(counts.values())
        return cls(batch.run_count, finished, finished - canceled - counts.get(RunStatus.COMPLETED, 0), canceled)

    @property
    def is_over(self) -> bool:
        return self.finished >= self.total

    @property
    def texts(self) -> tuple[str, str, str]:
        """In words: how many are finished, failed and canceled; empty where there are none."""
        return (
            f"{self.finished:,} of {self.total:,} finished",
            f"{self.failed:,} failed" if self.failed else "",
            f"{self.canceled:,} canceled" if self.canceled else "",
        )
