"""`UPDATE … RETURNING`: which rows a guarded update really changed, in the statement that changed them."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from django.core.exceptions import EmptyResultSet
from django.db import connections
from django.db.models.sql import UpdateQuery

if TYPE_CHECKING:
    from django.db.models import QuerySet

    from realtime_runs.models.run import Run, RunQuerySet


@dataclass(frozen=True, slots=True)
class Change:
    """A run has a new version; its tags and batch say who else wants to know."""

    run_id: str
    version: int
    attempt: int
    tags: tuple[str, ...]
    batch_id: str | None


COLUMNS: Final = ("id", "version", "attempt", "tag_names", "batch_id")


def update_returning(queryset: "RunQuerySet", values: dict[str, Any]) -> list[Change]:
    """Like `QuerySet.update`, but returns the changes. Django has no public way to add RETURNING to an update."""
    try:
        sql, params = compile_update(queryset, values, COLUMNS)
    except EmptyResultSet:  # the condition can never be true, such as `IN ()`
        return []
    with connections[queryset.db].cursor() as cursor:
        cursor.execute(sql, params)
        return changes(cursor.fetchall())


def compile_update(
    queryset: "QuerySet[Any, Any]", values: dict[str, Any], returning: Sequence[str]
) -> tuple[str, tuple[Any, ...]]:
    """The statement and its parameters. `returning`: names of columns."""
    connection = connections[queryset.db]
    query: Any = queryset.query.chain(UpdateQuery)
    query.add_update_values(values)
    query.clear_ordering(force=True)
    sql, params = query.get_compiler(connection=connection).as_sql()
    if returning:
        sql = f"{sql} RETURNING {', '.join(connection.ops.quote_name(column) for column in returning)}"
    return sql, tuple(params)


def changes(rows: Iterable[tuple[Any, ...]]) -> list[Change]:
    """Of COLUMNS."""
    return [
        Change(run_id, version, attempt, tuple(json.loads(tags) if isinstance(tags, str) else tags), batch_id)
        for run_id, version, attempt, tags, batch_id in rows
    ]


def change_of(run: "Run") -> Change:
    return Change(run.pk, run.version, run.attempt, tuple(run.tag_names), run.batch_id)
