"""Errors that name themselves in an answer, under `code`, so that a client in Python can raise the same."""

from typing import Final

from realtime_runs import exceptions

# The attributes that travel in the body beside it, in camelCase. (Of PayloadInvalid also the `details`.)
ATTRIBUTES: Final[dict[type[exceptions.RealtimeRunsError], tuple[str, ...]]] = {
    exceptions.PayloadInvalid: ("task_id",),
    exceptions.ChunkInvalid: (),
    exceptions.NotJson: (),
    exceptions.TooLarge: ("size", "limit", "unit"),
    exceptions.InvalidOption: (),
    exceptions.BatchItemInvalid: ("index",),
    exceptions.InvalidTransition: ("run_id", "status", "wanted"),
    exceptions.StreamClosed: ("run_id", "key", "reason"),
    exceptions.StreamGap: ("index", "first_index"),
}


def wire_name(attribute: str) -> str:
    first, *others = attribute.split("_")
    return first + "".join(map(str.capitalize, others))
