"""`path("", include("realtime_runs.urls"))`: the REST half of the API, and its documentation.

The other half, `realtime/`, is served by the line of asgi.py: see `realtime_runs.routing`.
"""

from typing import Any

from django.urls import path, re_path

from realtime_runs.wire.rest import batches, packets, tokens, triggering
from realtime_runs.wire.rest.base import NotFoundView

app_name = "realtime_runs"


def _signed(folder: str, view: type[packets.SignedView]) -> Any:
    return re_path(rf"^api/v1/{folder}/(?P<signed>[0-9A-Za-z:_-]+)\Z", view.as_view(), name=view.route)


# A slash in a task's id or a packet's name has been decoded before it comes here.

urlpatterns = [
    path("api/v1/auth/jwt/claims", tokens.ClaimsView.as_view()),
    path("api/v1/auth/public-tokens", tokens.PublicTokenView.as_view()),
    path("api/v1/tasks/<path:task_id>/trigger", triggering.TriggerView.as_view()),
    path("api/v3/batches", batches.CreateBatchView.as_view()),
    path("api/v3/batches/<slug:batch_id>/items", batches.BatchItemsView.as_view()),
    path("api/v2/tasks/batch", batches.WholeBatchView.as_view()),
    path("api/v2/batches/<slug:batch_id>", batches.BatchView.as_view()),
    path("api/v1/batches/<slug:batch_id>", batches.OldBatchView.as_view()),
    path("api/v1/batches/<slug:batch_id>/results", batches.BatchResultsView.as_view()),
    path("api/v2/packets/<path:name>", packets.UploadUrlView.as_view()),
    path("api/v1/packets/<path:name>", packets.PacketView.as_view()),
    path("api/v1/runs/<slug:run_id>/packets/<slug:field>", packets.RunPacketView.as_view()),
    _signed("packets-upload", packets.UploadView),
    _signed("packets-download", packets.DownloadView),
    _signed("runs-packets-download", packets.RunDownloadView),
    re_path(r"^api/", NotFoundView.as_view()),
]
