"""`/api/v?/batches…` and `POST /api/v2/tasks/batch`: batches (wire-protocol 4.2 to 4.6)."""

from collections.abc import Iterator
from typing import Any, Final

from drf_spectacular.utils import inline_serializer
from rest_framework import serializers
from rest_framework.exceptions import UnsupportedMediaType, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from realtime_runs import batch
from realtime_runs.access import rules
from realtime_runs.conf import app_settings
from realtime_runs.engine import open_batches, triggering
from realtime_runs.exceptions import BatchItemInvalid, InvalidInput
from realtime_runs.live.snapshot import snapshot
from realtime_runs.models import Run
from realtime_runs.wire import body
from realtime_runs.wire.errors import BodyTooLarge, refusal
from realtime_runs.wire.minting import batch_token_headers
from realtime_runs.wire.repeats import Made, make_once
from realtime_runs.wire.rest.base import ApiView, described
from realtime_runs.wire.rest.fields import AnyJson
from realtime_runs.wire.rest.triggering import (
    ItemOptions,
    KeyOptions,
    Parented,
    Text,
    largest_trigger,
    options_of,
    packet_of,
    parent_of,
)
from realtime_runs.wire.run_object import iso, result_object

_CREATION_BYTES: Final = 128 * 1024
_ONE_PHASE_BYTES: Final = 1_000_000
_ONE_PHASE_ITEMS: Final = 500
_UPLOAD_BYTES: Final = 256 * 1024 * 1024  # a thousand items of 128 KiB, beyond which clients upload payloads apart


class OneItem(serializers.Serializer[Any]):
    task = serializers.CharField(trim_whitespace=False)
    payload = AnyJson(required=False)
    options = ItemOptions(required=False)


class IndexedItem(OneItem):
    index = serializers.IntegerField(min_value=0)


class BatchRequest(Parented):
    runCount = serializers.IntegerField(min_value=1)
    taskIdentifiers = serializers.ListField(
        child=serializers.CharField(max_length=255, trim_whitespace=False), required=False
    )
    idempotencyKey = Text(required=False)
    idempotencyKeyOptions = KeyOptions(required=False)

    def validate_runCount(self, count: int) -> int:
        if count > app_settings.MAX_BATCH_ITEMS:
            raise ValidationError(f"A batch has at most {app_settings.MAX_BATCH_ITEMS:,} items.")
        return count


class WholeBatchRequest(Parented):
    items = OneItem(many=True, allow_empty=False, max_length=_ONE_PHASE_ITEMS)  # type: ignore[call-arg]  # for the list


class BatchAnswer(serializers.Serializer[Any]):
    id = serializers.CharField()
    runCount = serializers.IntegerField()
    isCached = serializers.BooleanField()
    idempotencyKey = serializers.CharField(required=False)


def _headers(view: ApiView, batch_id: str) -> dict[str, str]:
    is_page = view.request.headers.get("X-Trigger-Client") == "browser"
    return batch_token_headers(view.principal, batch_id, is_page=is_page)


def _item(index: int, wish: dict[str, Any]) -> open_batches.Item:
    """Raises BatchItemInvalid."""
    try:
        return open_batches.Item(index, wish["task"], packet_of(wish), options_of(wish))
    except InvalidInput as error:
        raise BatchItemInvalid(index, str(error)) from error


class CreateBatchView(ApiView):
    is_open_to_pages = True
    wish: dict[str, Any]

    def need(self) -> rules.Need:
        self.wish = self.valid(BatchRequest, limit=_CREATION_BYTES)
        return rules.create_batch(self.wish.get("taskIdentifiers", ()))

    @described(summary="Begin a batch, whose items follow", request=BatchRequest, responses={202: BatchAnswer})
    def post(self, request: Request) -> Response:
        wish = self.wish
        key = wish.get("idempotencyKey", "")
        parent_id = parent_of(wish, self.principal)

        def make() -> Made:
            opened, is_cached = open_batches.open_batch(
                wish["runCount"],
                task_ids=wish.get("taskIdentifiers", ()),
                parent_id=parent_id,
                key=key,
                key_as_written=wish.get("idempotencyKeyOptions", {}).get("key", ""),
            )
            return Made(opened.pk, is_cached)

        made = make_once(request._request, self.principal, "batch", make)
        answer = {"id": made.id, "runCount": triggering.get_batch(made.id).run_count, "isCached": made.is_cached}
        if key:
            answer["idempotencyKey"] = key
        return Response(answer, 202, headers=_headers(self, made.id))


class BatchItemsView(ApiView):
    """The body is read line by line while its items are stored, so what each line needs is checked there, too."""

    is_open_to_pages = True

    def authorize(self) -> None:
        """Done by `_items`."""

    @described(
        summary="Send the items of a batch",
        request={"application/x-ndjson": IndexedItem},
        responses=inline_serializer(
            "BatchUpload",
            {
                "id": serializers.CharField(),
                "itemsAccepted": serializers.IntegerField(),
                "itemsDeduplicated": serializers.IntegerField(),
                "sealed": serializers.BooleanField(),
                "runCount": serializers.IntegerField(),
                "enqueuedCount": serializers.IntegerField(required=False),
                "expectedCount": serializers.IntegerField(required=False),
            },
        ),
    )
    def post(self, request: Request, batch_id: str) -> Response:
        if request._request.content_type != "application/x-ndjson":
            raise UnsupportedMediaType(request._request.content_type or "")
        upload = open_batches.add_items(batch_id, self._items(batch_id))
        answer = {
            "id": batch_id,
            "itemsAccepted": upload.accepted,
            "itemsDeduplicated": upload.repeated,
            "sealed": upload.is_sealed,
            "runCount": upload.expected,
        }
        if not upload.is_sealed:
            answer |= {"enqueuedCount": upload.present, "expectedCount": upload.expected}
        return Response(answer)

    def _items(self, batch_id: str) -> Iterator[open_batches.Item]:
        allowed: set[str] = set()
        for number, line in enumerate(self._lines(), 1):
            try:
                wish = IndexedItem(data=body.parse_object(line))
            except InvalidInput as error:
                raise InvalidInput(f"Line {number}: {error}") from error
            task_id = wish.initial_data.get("task")
            if isinstance(task_id, str) and task_id not in allowed:
                self.principal.check(rules.add_items(batch_id, [task_id]))
                allowed.add(task_id)
            if not wish.is_valid():
                raise _invalid(wish, number)
            yield _item(wish.validated_data["index"], wish.validated_data)
        if not allowed:
            self.principal.check(rules.add_items(batch_id, ()))

    def _lines(self) -> Iterator[bytes]:
        """Those that are not blank. Django has the body in a file if it is large; it is never all in memory."""
        longest, left = largest_trigger(), _UPLOAD_BYTES
        while line := self.request._request.readline(longest + 1):
            left -= len(line)
            if len(line) > longest or left < 0:
                raise BodyTooLarge(longest if len(line) > longest else _UPLOAD_BYTES)
            if line.strip():
                yield line


def _invalid(wish: IndexedItem, line_number: int) -> BatchItemInvalid:
    index = wish.initial_data.get("index")
    reason = refusal(ValidationError(wish.errors)).body["error"]
    return BatchItemInvalid(index if type(index) is int else line_number - 1, reason)


class WholeBatchView(ApiView):
    is_open_to_pages = True
    wish: dict[str, Any]

    def need(self) -> rules.Need:
        self.wish = self.valid(WholeBatchRequest, limit=_ONE_PHASE_BYTES)
        return rules.trigger_batch({item["task"] for item in self.wish["items"]})

    @described(
        summary="Trigger a batch in one request",
        request=WholeBatchRequest,
        responses={
            202: inline_serializer(
                "WholeBatch", {"id": serializers.CharField(), "runCount": serializers.IntegerField()}
            )
        },
    )
    def post(self, request: Request) -> Response:
        parent_id = parent_of(self.wish, self.principal)
        items = [_item(index, wish) for index, wish in enumerate(self.wish["items"])]

        def make() -> Made:
            requests = [open_batches.check_item(item) for item in items]
            return Made(triggering.trigger_batch(requests, parent_id=parent_id).id)

        made = make_once(request._request, self.principal, "whole batch", make)
        return Response({"id": made.id, "runCount": len(items)}, 202, headers=_headers(self, made.id))


class BatchView(ApiView):
    is_open_to_pages = True
    shows_processing = True

    def need(self) -> rules.Need:
        return rules.read_batch(triggering.get_batch(self.kwargs["batch_id"]).pk)

    @described(
        summary="Retrieve a batch",
        responses=inline_serializer(
            "Batch",
            {
                "id": serializers.CharField(),
                "status": serializers.CharField(help_text="PENDING, PROCESSING or COMPLETED"),
                "idempotencyKey": serializers.CharField(required=False),
                "createdAt": serializers.DateTimeField(),
                "updatedAt": serializers.DateTimeField(),
                "runCount": serializers.IntegerField(),
                "runs": serializers.ListField(child=serializers.CharField()),
                "processing": serializers.DictField(),
            },
        ),
    )
    def get(self, request: Request, batch_id: str) -> Response:
        state = batch.retrieve(batch_id)
        answer: dict[str, Any] = {
            "id": state.id,
            "status": "PENDING" if state.is_open else "COMPLETED" if state.is_completed else "PROCESSING",
            "createdAt": iso(state.created_at),
            "updatedAt": iso(state.updated_at),
            "runCount": state.run_count,
            "runs": self._visible(state),
        }
        if state.idempotency_key:
            answer["idempotencyKey"] = state.idempotency_key
        if self.shows_processing:
            # An item of which no run can be made refuses the upload, so there is never one to tell of here.
            ended = {"completedAt": iso(state.updated_at)} if state.is_completed else {}
            answer["processing"] = {**ended, "errors": []}
        return Response(answer)

    def _visible(self, state: batch.BatchState) -> list[str]:
        if self.principal.sees_all:
            return list(state.run_ids)
        runs = self.principal.visible(Run.objects.filter(batch=state.id))
        seen = set(runs.values_list("pk", flat=True))
        return [run_id for run_id in state.run_ids if run_id in seen]


class OldBatchView(BatchView):
    shows_processing = False


class BatchResultsView(ApiView):
    def need(self) -> rules.Need:
        return rules.only_with_key("read")

    @described(
        summary="The results of the finished runs of a batch",
        responses=inline_serializer(
            "BatchResults",
            {"id": serializers.CharField(), "items": serializers.ListField(child=serializers.DictField())},
        ),
    )
    def get(self, request: Request, batch_id: str) -> Response:
        row = triggering.get_batch(batch_id)
        runs = self.principal.visible(Run.objects.filter(batch=row).final().order_by("batch_index"))
        return Response({"id": row.pk, "items": [result_object(snapshot(run)) for run in runs.defer("payload")]})
