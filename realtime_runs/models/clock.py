"""The database's clock. Leases and due times are compared by it alone, so that no worker's clock matters."""

from datetime import datetime, timedelta
from typing import Any

from django.db import connection
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import DateTimeField, Func
from django.db.models.sql.compiler import SQLCompiler
from django.utils import timezone


class FromNow(Func):
    """The database's time when the statement runs, plus `offset` (default zero; may be negative).

    `Now() + timedelta` says the same, but calls back into Python for every row on SQLite. There, times are texts: this
    one has microseconds, as those that Django writes, so that the two compare.
    """

    output_field = DateTimeField()

    def __init__(self, offset: timedelta | float = 0) -> None:
        self.seconds = offset.total_seconds() if isinstance(offset, timedelta) else float(offset)
        super().__init__()

    def as_sql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **extra: Any) -> tuple[str, list[Any]]:  # type: ignore[override]
        raise NotImplementedError(f"realtime_runs supports SQLite and PostgreSQL, not {connection.vendor}.")

    def as_sqlite(
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **extra: Any
    ) -> tuple[str, tuple[str, ...]]:
        if not self.seconds:
            return "STRFTIME('%%Y-%%m-%%d %%H:%%M:%%f000', 'NOW')", ()
        return "STRFTIME('%%Y-%%m-%%d %%H:%%M:%%f000', 'NOW', %s)", (f"{self.seconds:+.3f} seconds",)

    def as_postgresql(
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **extra: Any
    ) -> tuple[str, list[Any]]:
        if not self.seconds:
            return "STATEMENT_TIMESTAMP()", []
        return "(STATEMENT_TIMESTAMP() + %s * INTERVAL '1 second')", [self.seconds]


def database_now() -> datetime:
    """The database's time as a value, for rows about to be inserted: cheaper than one expression for each column."""
    if connection.vendor == "sqlite":
        return timezone.now()  # a library in this process: its clock is ours
    with connection.cursor() as cursor:
        cursor.execute("SELECT CLOCK_TIMESTAMP()")
        now: datetime = cursor.fetchone()[0]
        return now
