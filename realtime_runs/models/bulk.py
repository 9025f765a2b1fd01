"""Inserting and updating rows, where there are hundreds or thousands a second.

`bulk_create` makes a model of each row first, which takes longer than the insert; `bulk_update` makes a CASE with a
branch for each row. PostgreSQL is given one array a column: a round trip for each row would take most of the time.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from django.db import connection, models

Rows = Sequence[tuple[Any, ...]]


def insert_many(
    model: type[models.Model], fields: Sequence[str], rows: Rows, *, ignore_conflicts: bool = False
) -> None:
    """Insert rows with these fields, in this order. All fields without a database default must be there."""
    if not rows:
        return
    is_array = connection.vendor == "postgresql" and len(rows) > 1
    sql = _insert(connection.vendor, model, tuple(fields), is_array)
    if ignore_conflicts:
        sql += " ON CONFLICT DO NOTHING"
    adapted = _adapted(model, fields, rows)
    if is_array:
        _execute(sql, _by_column(adapted))
    elif len(rows) == 1:
        _execute(sql, adapted[0])
    else:
        _execute_each(sql, adapted)


@lru_cache
def _insert(vendor: str, model: type[models.Model], fields: tuple[str, ...], is_array: bool) -> str:
    table, columns = _names(model, fields)
    into = f"INSERT INTO {table} ({', '.join(columns)})"
    return (
        f"{into} SELECT * FROM {_arrays(model, fields)}"
        if is_array
        else (f"{into} VALUES ({', '.join(['%s'] * len(fields))})")
    )


def update_many(model: type[models.Model], fields: Sequence[str], rows: Rows) -> None:
    """Set these fields of rows; each is (primary key, *values)."""
    if not rows:
        return
    table, columns = _names(model, fields)
    _, (pk,) = _names(model, ["pk"])
    if connection.vendor == "postgresql":
        sets = ", ".join(f"{column} = given.{column}" for column in columns)
        given = f"{_arrays(model, ['pk', *fields])} AS given(pk, {', '.join(columns)})"
        _execute(f"UPDATE {table} SET {sets} FROM {given} WHERE {table}.{pk} = given.pk", _by_column(rows))
    else:
        sets = ", ".join(f"{column} = %s" for column in columns)
        adapted = _adapted(model, ["pk", *fields], rows)
        _execute_each(f"UPDATE {table} SET {sets} WHERE {pk} = %s", [(*values, key) for key, *values in adapted])


def _field(model: type[models.Model], name: str) -> "models.Field[Any, Any]":
    field = model._meta.pk if name == "pk" else model._meta.get_field(name)
    assert isinstance(field, models.Field)  # noqa: S101 they are our own models
    return field


def _names(model: type[models.Model], fields: Sequence[str]) -> tuple[str, list[str]]:
    quote = connection.ops.quote_name
    return quote(model._meta.db_table), [quote(_field(model, name).column or name) for name in fields]


def _arrays(model: type[models.Model], fields: Sequence[str]) -> str:
    types = [_field(model, name).rel_db_type(connection) for name in fields]
    return f"UNNEST({', '.join(f'%s::{type_}[]' for type_ in types)})"


def _by_column(rows: Rows) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _adapted(model: type[models.Model], fields: Sequence[str], rows: Rows) -> Rows:
    """With times as SQLite has them, and JSON as text."""
    times, values_of_json = _special(model, tuple(fields))
    if connection.vendor == "postgresql":
        times = frozenset()  # psycopg knows them
    if not times and not values_of_json:
        return rows
    adapt = connection.ops.adapt_datetimefield_value
    return [
        tuple(
            adapt(value) if place in times else json.dumps(value) if place in values_of_json else value
            for place, value in enumerate(row)
        )
        for row in rows
    ]


@lru_cache
def _special(model: type[models.Model], fields: tuple[str, ...]) -> tuple[frozenset[int], frozenset[int]]:
    """The places of times, and of JSON."""
    kinds = [_field(model, name) for name in fields]
    return (
        frozenset(place for place, field in enumerate(kinds) if isinstance(field, models.DateTimeField)),
        frozenset(place for place, field in enumerate(kinds) if isinstance(field, models.JSONField)),
    )


def _execute(sql: str, params: Sequence[Any]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)


def _execute_each(sql: str, rows: Rows) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(sql, rows)
