"""`path("", include("realtime_runs.urls"))`: the REST half of the API, and its documentation.

The other half, `realtime/`, is served by the line of asgi.py: see `realtime_runs.routing`.
"""

from typing import Any

from django.apps import apps
from django.urls import path, re_path

from realtime_runs.wire.cancel_form import CancelFormView
from realtime_runs.wire.rest import (
    batches,
    idempotency_keys,
    metadata,
    packets,
    runs,
    schema,
    tokens,
    triggering,
    wait_tokens,
)
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
    path("api/v3/runs/<slug:run_id>", runs.RunView.as_view()),
    path("api/v1/runs", runs.RunsView.as_view()),
    path("api/v2/runs/<slug:run_id>/cancel", runs.CancelView.as_view()),
    path("api/v1/runs/<slug:run_id>/replay", runs.ReplayView.as_view()),
    path("api/v1/runs/<slug:run_id>/reschedule", runs.RescheduleView.as_view()),
    path("api/v1/runs/<slug:run_id>/result", runs.ResultView.as_view()),
    path("api/v1/runs/<slug:run_id>/metadata", metadata.MetadataView.as_view()),
    path("api/v1/runs/<slug:run_id>/tags", metadata.TagsView.as_view()),
    path("api/v1/waitpoints/tokens", wait_tokens.TokensView.as_view()),
    path("api/v1/waitpoints/tokens/<slug:token_id>", wait_tokens.TokenView.as_view()),
    path("api/v1/waitpoints/tokens/<slug:token_id>/complete", wait_tokens.CompleteTokenView.as_view()),
    path(
        "api/v1/waitpoints/tokens/<slug:token_id>/callback/<slug:hash>",
        wait_tokens.CallbackView.as_view(),
        name="complete-wait-token",
    ),
    path("api/v1/idempotencyKeys/<path:key>/reset", idempotency_keys.ResetKeyView.as_view()),
    _signed("packets-upload", packets.UploadView),
    _signed("packets-download", packets.DownloadView),
    _signed("runs-packets-download", packets.RunDownloadView),
    path("pages/runs/<slug:run_id>/cancel", CancelFormView.as_view(), name="cancel-run"),
    path("api/schema", schema.SchemaView.as_view(), name="schema"),
    *([path("api/docs", schema.DocsView.as_view())] if apps.is_installed("drf_spectacular") else []),
    re_path(r"^api/", NotFoundView.as_view()),
]
