"""The runs in Django's admin: watched live, and steered by who may. Rows change by the moves of the engine, never here."""

from realtime_runs.admin.others import BatchAdmin, TagAdmin, WaitTokenAdmin
from realtime_runs.admin.run_admin import RunAdmin

__all__ = ["BatchAdmin", "RunAdmin", "TagAdmin", "WaitTokenAdmin"]
