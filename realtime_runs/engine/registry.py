"""The tasks of this process, by id."""

from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured

from realtime_runs.engine.definition import TaskDefinition, hook_after
from realtime_runs.exceptions import UnknownTask
from realtime_runs.statuses import RunStatus

_tasks: Final[dict[str, TaskDefinition[Any, Any]]] = {}


def register(definition: TaskDefinition[Any, Any]) -> None:
    """Raises ImproperlyConfigured for a second task with the same id."""
    other = _tasks.get(definition.id)
    # A module that is imported again (autoreload, doctests) defines the same function once more; that is no clash.
    if other is not None and _place(other) != _place(definition):
        raise ImproperlyConfigured(
            f"Two tasks have the id {definition.id!r}: {'.'.join(_place(other))} and {'.'.join(_place(definition))}."
        )
    _tasks[definition.id] = definition


def _place(definition: TaskDefinition[Any, Any]) -> tuple[str, str]:
    return definition.function.__module__, definition.function.__qualname__


def get(task_id: str) -> TaskDefinition[Any, Any]:
    """Raises UnknownTask, which names the tasks there are."""
    try:
        return _tasks[task_id]
    except KeyError:
        raise UnknownTask(task_id, list(_tasks)) from None


def find(task_id: str) -> TaskDefinition[Any, Any] | None:
    return _tasks.get(task_id)


def all_tasks() -> list[TaskDefinition[Any, Any]]:
    return list(_tasks.values())


def ids(*, is_async: bool | None = None) -> list[str]:
    return [task.id for task in _tasks.values() if is_async is None or task.is_async == is_async]


def with_hook_after(status: RunStatus) -> list[str]:
    """Ids of the tasks that want to hear of this end."""
    name = hook_after(status)
    return [task.id for task in _tasks.values() if name in task.hooks]
