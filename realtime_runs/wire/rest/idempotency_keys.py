"""`POST /api/v1/idempotencyKeys/{key}/reset` (wire-protocol 11)."""

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from realtime_runs.access import rules
from realtime_runs.engine import idempotency
from realtime_runs.exceptions import NotFound
from realtime_runs.packets import check_text
from realtime_runs.wire.rest.base import ApiView, described
from realtime_runs.wire.rest.schemas import Id
from realtime_runs.wire.rest.triggering import Text


class ResetRequest(serializers.Serializer[Any]):
    taskIdentifier = Text(max_length=255)


class ResetKeyView(ApiView):
    is_open_to_pages = True

    def need(self) -> rules.Need:
        return rules.reset_key()

    @described(summary="Let the next trigger with this key make a new run", request=ResetRequest, responses=Id)
    def post(self, request: Request, key: str) -> Response:
        task_id = self.valid(ResetRequest)["taskIdentifier"]
        check_text(key, "The key")
        check_text(task_id, "The task")
        if not idempotency.release(task_id, key):
            raise NotFound(key)
        return Response({"id": key})
