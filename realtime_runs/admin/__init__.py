"""Runs in Django's admin, live. Who may changes their course, by the moves of the engine: no column is edited here."""

from realtime_runs.admin.others import BatchAdmin, TagAdmin, WaitTokenAdmin
from realtime_runs.admin.run_admin import RunAdmin

__all__ = ["BatchAdmin", "RunAdmin", "TagAdmin", "WaitTokenAdmin"]
