"""The tags of the running task."""

from collections.abc import Iterable

from realtime_runs.engine.context import active_run, refuse_to_block
from realtime_runs.engine.editing import add_own_tags

__all__ = ["aadd", "add"]


def add(tags: str | Iterable[str]) -> tuple[str, ...]:
    """Add tags to the running run; followers of the tags see it at once. Returns all its tags.

    Raises NotInsideRun, LeaseLost, TooLarge above 10 tags or 128 characters, NotJson, InvalidOption; then no tag was
    added. In async code use `await aadd(…)`; this one raises SynchronousOnlyOperation there.
    """
    active = active_run("tags.add()")
    refuse_to_block("tags.add()", "await tags.aadd()")
    return active.writer.write(lambda: add_own_tags(active.lease, tags))


async def aadd(tags: str | Iterable[str]) -> tuple[str, ...]:
    active = active_run("tags.aadd()")
    return await active.writer.awrite(lambda: add_own_tags(active.lease, tags))
