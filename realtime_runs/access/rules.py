"""What each route needs: the table of wire-protocol 2.3, and the one place where it stands."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from realtime_runs.access.policy import Action
from realtime_runs.access.scopes import Grant
from realtime_runs.models import Run

Alternative = tuple[Grant, ...]  # all of these are needed


@dataclass(frozen=True, slots=True)
class Need:
    """What somebody must be allowed to do. A secret key is always enough.

    `action` and `run`: what the policy is asked for a user of the site. `alternatives`: of these grants of a public
    token one set must be complete; without any, public tokens are not for this route.
    """

    action: Action
    run: Run | None = None
    alternatives: tuple[Alternative, ...] = ()


def _any(*grants: Grant) -> tuple[Alternative, ...]:
    return tuple((grant,) for grant in grants)


def _all_tasks(action: str, task_ids: Collection[str]) -> tuple[Alternative, ...]:
    """Nothing is granted for no task at all."""
    return (tuple(Grant(action, "tasks", task_id) for task_id in set(task_ids)),) if task_ids else ()


def trigger(task_id: str) -> Need:
    return Need("trigger", alternatives=_any(Grant("trigger", "tasks", task_id)))


def make_child(parent_id: str, parent: Run | None) -> Need:
    """Beside the right to trigger. `parent` is None when there is none with this id, which a token that may not read it
    does not learn.
    """
    return read_run_or_none(parent_id, parent)


def trigger_batch(task_ids: Collection[str]) -> Need:
    """The batch in one request, of these tasks."""
    return Need("trigger", alternatives=_all_tasks("batchTrigger", task_ids))


def create_batch(task_ids: Collection[str]) -> Need:
    whole = _any(Grant("batchTrigger", "batch"), Grant("batchTrigger", "tasks"))
    return Need("trigger", alternatives=(*whole, *_all_tasks("batchTrigger", task_ids)))


def add_items(batch_id: str, task_ids: Collection[str]) -> Need:
    own = _any(Grant("write", "batch", batch_id))
    return Need("trigger", alternatives=(*own, *_all_tasks("batchTrigger", task_ids)))


def read_run(run: Run) -> Need:
    """The run, its streams, its inputs, its packets."""
    return Need("read", run, _reading(run.pk, run.task, run.tag_names, run.batch_id))


def read_run_or_none(run_id: str, run: Run | None) -> Need:
    """The same where `run` is None when there is none with this id, or nothing of it may be known."""
    if run is not None:
        return read_run(run)
    return Need("read", alternatives=_any(Grant("read", "runs", run_id)))


def read_known_run(run_id: str, task_id: str, tags: Iterable[str], batch_id: str | None) -> Need:
    """The same of a run whose row need not be read, because who asks has a token or a key."""
    return Need("read", alternatives=_reading(run_id, task_id, tags, batch_id))


def _reading(run_id: str, task_id: str, tags: Iterable[str], batch_id: str | None) -> tuple[Alternative, ...]:
    grants = [Grant("read", "runs", run_id), Grant("read", "tasks", task_id)]
    grants += [Grant("read", "tags", tag) for tag in tags]
    if batch_id:
        grants.append(Grant("read", "batch", batch_id))
    return _any(*grants)


def follow_tags(tags: Iterable[str]) -> Need:
    grants = [Grant("read", "runs"), Grant("read", "tags"), *(Grant("read", "tags", tag) for tag in tags)]
    return Need("read", alternatives=_any(*grants))


def read_batch(batch_id: str) -> Need:
    return Need("read", alternatives=_any(Grant("read", "batch", batch_id), Grant("read", "runs")))


def list_runs(task_ids: Collection[str]) -> Need:
    whole = _any(Grant("read", "runs"), Grant("read", "tasks"))
    return Need("read", alternatives=(*whole, *_all_tasks("read", task_ids)))


def cancel(run_id: str, run: Run | None) -> Need:
    """`run` is None when there is none with this id, which only who may cancel it learns."""
    grants = [Grant("write", "runs", run_id)]
    if run is not None:
        grants.append(Grant("write", "tasks", run.task))
    return Need("cancel", run, _any(*grants))


def reset_key() -> Need:
    return Need("trigger", alternatives=_any(Grant("write", "runs")))


def send_input(run_id: str, run: Run | None) -> Need:
    return Need("send", run, _any(Grant("write", "inputStreams", run_id)))


def complete_wait_token(token_id: str) -> Need:
    return Need("complete", alternatives=_any(Grant("write", "waitpoints", token_id)))


def only_with_key(action: Action, run: Run | None = None) -> Need:
    """What no public token may do; a user of the site may, if the policy says so."""
    return Need(action, run)
