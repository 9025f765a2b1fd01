"""`/api/v1/runs/{run}/metadata` and `…/tags` (wire-protocol 6)."""

from typing import Any, cast

from drf_spectacular.utils import inline_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from realtime_runs import runs
from realtime_runs.access import rules
from realtime_runs.engine.editing import Edits, edit_metadata_of
from realtime_runs.engine.operations import Kind, Operation
from realtime_runs.exceptions import InvalidOption, RunNotFound
from realtime_runs.wire.rest.base import ApiView, described
from realtime_runs.wire.rest.fields import AnyJson, OneOrMore
from realtime_runs.wire.rest.runs import find_row
from realtime_runs.wire.rest.triggering import Text


class OperationRequest(serializers.Serializer[Any]):
    type = serializers.ChoiceField(["set", "delete", "append", "remove", "increment", "update"])
    key = Text(required=False, help_text="Of all but `update`")
    value = AnyJson(required=False, help_text="Of all but `delete`")

    def validate(self, operation: dict[str, Any]) -> dict[str, Any]:
        needed = {"update": {"value"}, "delete": {"key"}}.get(operation["type"], {"key", "value"})
        if missing := needed - operation.keys():
            raise serializers.ValidationError(dict.fromkeys(sorted(missing), "This field is required."))
        return operation


def _operations() -> Any:
    return OperationRequest(many=True, required=False, allow_null=True, max_length=10_000)  # type: ignore[call-arg]  # for the list


class MetadataRequest(serializers.Serializer[Any]):
    metadata = AnyJson(required=False, help_text="Replaces all of it, where there are no `operations`")
    operations = _operations()
    parentOperations = _operations()
    rootOperations = _operations()


MetadataAnswer = inline_serializer("Metadata", {"metadata": serializers.DictField()})


class MetadataView(ApiView):
    max_body = 2 * 1024 * 1024

    def need(self) -> rules.Need:
        action: Any = "read" if self.request.method == "GET" else "edit"
        return rules.only_with_key(action, find_row(self.kwargs["run_id"]))

    @described(summary="The metadata of a run", responses=MetadataAnswer)
    def get(self, request: Request, run_id: str) -> Response:
        return Response({"metadata": runs.retrieve(run_id).metadata})

    @described(
        operation_id="edit_metadata",
        summary="Change the metadata of a run, and of those above it",
        request=MetadataRequest,
        responses=MetadataAnswer,
    )
    def put(self, request: Request, run_id: str) -> Response:
        wish = self.valid(MetadataRequest, may_be_empty=True)
        own = wish.get("operations")
        if own is None and wish.get("metadata") is not None:
            own = [{"type": "update", "key": "", "value": wish["metadata"]}]
        edits = Edits(_made(own), _made(wish.get("parentOperations")), _made(wish.get("rootOperations")))
        return Response({"metadata": edit_metadata_of(run_id, edits)})


def _made(operations: list[dict[str, Any]] | None) -> list[Operation]:
    """Raises InvalidOption."""
    if operations and None in operations:
        raise InvalidOption("An operation is an object with a type, not null.")
    return [Operation(cast(Kind, one["type"]), one.get("key", ""), one.get("value")) for one in operations or ()]


class TagsRequest(serializers.Serializer[Any]):
    tags = OneOrMore()


class TagsView(ApiView):
    def need(self) -> rules.Need:
        self.row = find_row(self.kwargs["run_id"])
        return rules.only_with_key("edit", self.row)

    @described(
        summary="Add tags to a run",
        request=TagsRequest,
        responses=inline_serializer("Added", {"message": serializers.CharField()}),
    )
    def post(self, request: Request, run_id: str) -> Response:
        if self.row is None:
            raise RunNotFound(run_id)
        tags = runs.add_tags(run_id, self.valid(TagsRequest)["tags"]).tags
        count = len(set(tags).difference(self.row.tag_names))
        return Response({"message": f"{count} {'tag' if count == 1 else 'tags'} added"})
