"""`UPDATE … RETURNING`: which rows a guarded update really changed, in the statement that changed them."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from django.core.exceptions import EmptyResultSet
from django.db import connections
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


def update_returning(queryset: "RunQuerySet", **values: Any) -> list[Change]:
    """Like `QuerySet.update`, but returns the changes. Django has no public way to add RETURNING to an update."""
    connection = connections[queryset.db]
    query: Any = queryset.query.chain(UpdateQuery)
    query.add_update_values(values)
    query.clear_ordering(force=True)
    try:
        sql, params = query.get_compiler(connection=connection).as_sql()
    except EmptyResultSet:  # the condition can never be true, such as `IN ()`
        return []
    columns = ", ".join(connection.ops.quote_name(column) for column in _COLUMNS)
    with connection.cursor() as cursor:
        cursor.execute(f"{sql} RETURNING {columns}", params)
        return [
            Change(run_id, version, attempt, tuple(json.loads(tags) if isinstance(tags, str) else tags), batch_id)
            for run_id, version, attempt, tags, batch_id in cursor.fetchall()
        ]
