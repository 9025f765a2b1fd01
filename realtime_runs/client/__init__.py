"""The HTTP API from Python, without a Django project: a script, another service, a worker elsewhere.

    from realtime_runs.client import Client

    client = Client("https://example.com", access_token="tr_dev_…")
    handle = client.tasks.trigger("pack-order", {"items": ["tea"]}, tags=["user:1234"])
    for run in client.runs.subscribe_to_run(handle):       # or: async for
        print(run.status, run.metadata.get("progress"))

Names, arguments and results are those of the namespaces in a Django project; functions have an async twin: `a` + name.
Needs the extra: `pip install "realtime-runs[client]"`.
"""

from realtime_runs.client.client import Client
from realtime_runs.client.objects import BatchHandle, BatchState, RunHandle, WaitToken
from realtime_runs.client.pages import Page
from realtime_runs.live.items import RunUpdate, StreamChunk, StreamRecord
from realtime_runs.live.realtime_run import RealtimeRun, RunError
from realtime_runs.statuses import RunStatus

__all__ = [
    "BatchHandle",
    "BatchState",
    "Client",
    "Page",
    "RealtimeRun",
    "RunError",
    "RunHandle",
    "RunStatus",
    "RunUpdate",
    "StreamChunk",
    "StreamRecord",
    "WaitToken",
]
