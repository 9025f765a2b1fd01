"""The search field of the list of runs: an id, a tag or an idempotency key, each as a whole."""

from typing import Final

from realtime_runs.models import RunTag
from realtime_runs.models.run import RunQuerySet

HELP: Final = "Id of a run, tag or idempotency key"
MOST: Final = 1_000  # with a tag; by the filter one sees all


def search(runs: RunQuerySet, text: str) -> RunQuerySet:
    """Each is looked for in its own index: one condition for all three would read the whole table."""
    text = text.strip()
    if not text:
        return runs
    if "\0" in text:
        return runs.none()
    if text.startswith("run_") and runs.filter(pk=text).exists():
        return runs.filter(pk=text)
    with_key = runs.with_idempotency_key(text).order_by("-pk").values_list("pk", flat=True)[:MOST]
    return runs.filter(pk__in={*with_key, *newest_with_tag(text)})


def newest_with_tag(tag: str, behind: str | None = None, before: str | None = None, most: int = MOST) -> list[str]:
    """Ids of runs, newest first: those behind that one, or the last ones before it.

    The table of tags has them in order. A query of runs with the tag as a condition would sort all that have it, or
    read all there are.
    """
    rows = RunTag.objects.filter(tag=tag)
    if before is not None:
        rows = rows.filter(run__gt=before).order_by("run_id")
    else:
        rows = (rows if behind is None else rows.filter(run__lt=behind)).order_by("-run_id")
    ids = list(rows.values_list("run_id", flat=True)[:most])
    return ids[::-1] if before is not None else ids
