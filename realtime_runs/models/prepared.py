"""Statements that the ORM builds once, because that takes it longer than the database needs to run them.

For the few that are run for every run or every commit. A queryset, and the values of an update, have a `Place` or
NUMBER_PLACE for each value that differs from time to time.
"""

from collections.abc import Sequence
from typing import Any, Final, Self, TypeVar

from django.db import connections, models

from realtime_runs.models.returning import COLUMNS, Change, changes, compile_update

Given = str | Sequence[str] | None
M = TypeVar("M", bound=models.Model)


class Place(str):
    """Stands for a text that is given later."""


NUMBER_PLACE: Final = 2_147_483_629  # the same for a number; fits every integer column, and nobody means it


def places(name: str, count: int) -> list[Place]:
    """For a list of so many texts, which is given under this name."""
    return [Place(f"{name} {index}") for index in range(count)]


class Prepared:
    def __init__(self, alias: str, sql: str, params: Sequence[Any]) -> None:
        self._alias = alias
        self._sql = sql
        self._params = tuple(params)

    @classmethod
    def read(cls, queryset: "models.QuerySet[Any, Any]") -> Self:
        """Of `values_list()`: `rows` gives its columns as the database has them."""
        sql, params = queryset.query.get_compiler(queryset.db).as_sql()
        return cls(queryset.db, sql, params)

    @classmethod
    def update(
        cls, queryset: "models.QuerySet[Any, Any]", values: dict[str, Any], returning: Sequence[str] = ()
    ) -> Self:
        """`returning`: names of columns, which `rows` gives of the rows that were changed."""
        return cls(queryset.db, *compile_update(queryset, values, returning))

    def rows(self, number: int = 0, **given: Given) -> list[tuple[Any, ...]]:
        """`given`: texts by the names of their places."""
        with connections[self._alias].cursor() as cursor:
            cursor.execute(self._sql, self._filled(number, given))
            rows: list[tuple[Any, ...]] = cursor.fetchall()
            return rows

    def instances(self, model: type[M], number: int = 0, **given: Given) -> list[M]:
        """Of an update that returns all columns of the model."""
        return list(model._default_manager.using(self._alias).raw(self._sql, self._filled(number, given)))

    def execute(self, number: int = 0, **given: Given) -> None:
        with connections[self._alias].cursor() as cursor:
            cursor.execute(self._sql, self._filled(number, given))

    def _filled(self, number: int, given: dict[str, Given]) -> list[Any]:
        texts: dict[str, str | None] = {}
        for name, value in given.items():
            if value is None or isinstance(value, str):
                texts[name] = value
            else:
                texts.update((f"{name} {index}", text) for index, text in enumerate(value))
        return [
            texts[param] if isinstance(param, Place) else number if param == NUMBER_PLACE else param
            for param in self._params
        ]


class PreparedMove(Prepared):
    """An update of runs."""

    @classmethod
    def of(cls, queryset: "models.QuerySet[Any, Any]", values: dict[str, Any]) -> Self:
        return cls.update(queryset, values, COLUMNS)

    def changes(self, number: int = 0, **given: Given) -> list[Change]:
        return changes(self.rows(number, **given))
