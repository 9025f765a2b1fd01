"""The tags of the running task."""

from collections.abc import Iterable

from asgiref.sync import sync_to_async

from realtime_runs.engine.context import active_run
from realtime_runs.engine.editing import add_tags

__all__ = ["aadd", "add"]


def add(tags: str | Iterable[str]) -> tuple[str, ...]:
    """Add tags to the running run; followers of the tags see it at once. Returns all its tags.

    Raises NotInsideRun, TooLarge above 10 tags or 128 characters, NotJson, InvalidOption; then no tag was added.
    """
    return add_tags(active_run("tags.add()").run.id, tags)


aadd = sync_to_async(add)
