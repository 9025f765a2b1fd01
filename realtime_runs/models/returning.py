"""`UPDATE … RETURNING`: which rows a guarded update really changed, in the statement that changed them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from django.core.exceptions import EmptyResultSet
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.sql import UpdateQuery

if TYPE_CHECKING:
    from realtime_runs.models.run import RunQuerySet


@dataclass(frozen=True, slots=True)
class Change:
    """A run has a new version; its tags and batch say who else wants to know."""

    run_id: str
    version: int
    attempt: int
    tags: tuple[str, ...]
    batch_id: str | None


_COLUMNS: Final = ("id", "version", "attempt", "tag_names", "batch_id")


def update_returning(queryset: "RunQuerySet", values: dict[str, Any]) -> list[Change]:
    """Like `QuerySet.update`, but returns the changes. Django has no public way to add RETURNING to an update."""
    connection = connections[queryset.db]
    try:
        sql, params = compile_update(queryset, values)
    except EmptyResultSet:  # the condition can never be true, such as `IN ()`
        return []
    return execute_update(connection, sql, params)


def compile_update(queryset: "RunQuerySet", values: dict[str, Any]) -> tuple[str, tuple[Any, ...]]:
    """The statement and its parameters."""
    connection = connections[queryset.db]
    query: Any = queryset.query.chain(UpdateQuery)
    query.add_update_values(values)
    query.clear_ordering(force=True)
    sql, params = query.get_compiler(connection=connection).as_sql()
    columns = ", ".join(connection.ops.quote_name(column) for column in _COLUMNS)
    return f"{sql} RETURNING {columns}", tuple(params)


def execute_update(connection: BaseDatabaseWrapper, sql: str, params: Sequence[Any]) -> list[Change]:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return [
            Change(run_id, version, attempt, tuple(json.loads(tags) if isinstance(tags, str) else tags), batch_id)
            for run_id, version, attempt, tags, batch_id in cursor.fetchall()
        ]


class Place(str):
    """Stands for a text that a prepared statement is given later."""


NUMBER_PLACE: Final = 2_147_483_629  # the same for a number; fits every integer column, and nobody means it


class PreparedUpdate:
    """An update that the ORM builds once, because that takes it longer than the database needs to run it.

    Queryset and values have a `Place` or NUMBER_PLACE for each value that differs.
    """

    def __init__(self, queryset: "RunQuerySet", values: dict[str, Any]) -> None:
        self._alias = queryset.db
        self._sql, self._params = compile_update(queryset, values)

    def execute(self, number: int, **texts: str | None) -> list[Change]:
        """`texts`: by the name in their Place."""
        params = [
            texts[param] if isinstance(param, Place) else number if param == NUMBER_PLACE else param
            for param in self._params
        ]
        return execute_update(connections[self._alias], self._sql, params)
