"""`/api/v?/runs…`: looking at runs, and changing their course (wire-protocol 5)."""

from typing import Any, Final

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, inline_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from realtime_runs import runs
from realtime_runs.access import rules
from realtime_runs.access.keys import ENVIRONMENT_ID
from realtime_runs.access.principals import Principal
from realtime_runs.engine.listing import list_runs, without_packets
from realtime_runs.exceptions import InvalidInput, RunNotFound
from realtime_runs.live.snapshot import RealtimeRun, snapshot
from realtime_runs.models import Run
from realtime_runs.models.run import RunQuerySet
from realtime_runs.packets import JSON, SUPER_JSON
from realtime_runs.statuses import RunStatus
from realtime_runs.wire import body
from realtime_runs.wire.errors import QueryError
from realtime_runs.wire.repeats import Made, make_once
from realtime_runs.wire.rest import queries
from realtime_runs.wire.rest.base import ApiView, described
from realtime_runs.wire.rest.fields import AnyJson, DurationOrNumber, OneOrMore
from realtime_runs.wire.rest.schemas import Id, RunListSchema, RunSchema
from realtime_runs.wire.rest.triggering import Text, largest_trigger, options_of, packet_of
from realtime_runs.wire.run_object import common_fields, result_object, run_object

_MOST_CHILDREN: Final = 100
# Statuses of the reference server that a run never has here.
_NEVER: Final = ("PENDING_VERSION", "DEQUEUED")
_MACHINES: Final = ("micro", "small-1x", "small-2x", "medium-1x", "medium-2x", "large-1x", "large-2x")
# What no run has here, so that who filters by one of them finds none.
_WITHOUT_MEANING: Final = ("version", "machine", "region", "schedule", "bulkAction")


def find_row(run_id: str) -> Run | None:
    """The run that a caller wants something of, as far as one has to know it to judge that."""
    return Run.objects.without_packets().find(run_id)


def whole_object(run: RealtimeRun, principal: Principal) -> dict[str, Any]:
    """The run with those around it that the caller may read, too: one query for its parent and root, one for its newest
    children.
    """
    ids = {run.parent_id, run.root_id} - {None}
    above = {one["id"]: one for one in _readable(Run.objects.filter(pk__in=ids), principal)} if ids else {}
    related = {"root": above.get(run.root_id or ""), "parent": above.get(run.parent_id or "")}
    found: dict[str, Any] = {name: fields for name, fields in related.items() if fields is not None}
    found["children"] = _readable(Run.objects.filter(parent=run.id), principal)[::-1]
    return {**run_object(run), "relatedRuns": found}


def _readable(found: RunQuerySet, principal: Principal) -> list[dict[str, Any]]:
    """The newest of them, as far as the caller may read each: who may read a run need not be one who may read these."""
    rows = principal.visible(found.without_packets()).order_by("-pk")[:_MOST_CHILDREN]
    return [
        common_fields(snapshot(without_packets(row)))
        for row in rows
        if not principal.sees_all or principal.may(rules.read_run(row))
    ]


class RunView(ApiView):
    is_open_to_pages = True
    row: Run

    def need(self) -> rules.Need:
        row = Run.objects.find(self.kwargs["run_id"])
        if row is None:
            raise RunNotFound(self.kwargs["run_id"])
        self.row = row
        return rules.read_run(row)

    @described(summary="A run", responses=RunSchema)
    def get(self, request: Request, run_id: str) -> Response:
        return Response(whole_object(snapshot(self.row), self.principal))


def _filter(name: str, text: str = "One or several, with commas between them") -> OpenApiParameter:
    return OpenApiParameter(name, OpenApiTypes.STR, description=text)


class RunsView(ApiView):
    is_open_to_pages = True

    def need(self) -> rules.Need:
        return rules.list_runs(queries.listed(self.request.GET, "filter[taskIdentifier]") or ())

    @described(
        summary="A page of runs, newest first",
        responses=RunListSchema,
        parameters=[
            OpenApiParameter("page[size]", OpenApiTypes.INT, description="1 to 100, default 25"),
            _filter("page[after]", "`pagination.next` of an earlier page"),
            _filter("page[before]", "`pagination.previous` of an earlier page; wins"),
            *(_filter(f"filter[{name}]") for name in ("status", "taskIdentifier", "tag", "queue")),
            *(_filter(f"filter[{name}]", "No run here has one") for name in _WITHOUT_MEANING),
            _filter("filter[batch]", "The id of a batch"),
            OpenApiParameter("filter[isTest]", OpenApiTypes.BOOL),
            *(_filter(f"filter[createdAt][{name}]", "Milliseconds, or ISO 8601") for name in ("from", "to")),
            _filter("filter[createdAt][period]", "A duration"),
        ],
    )
    def get(self, request: Request) -> Response:
        query = request.GET
        status = queries.listed(query, "filter[status]")
        queries.refuse_unknown("filter[status]", status, [*RunStatus.values, *_NEVER])
        queries.refuse_unknown("filter[machine]", queries.listed(query, "filter[machine]"), _MACHINES)
        filters: dict[str, Any] = {
            "status": None if status is None else [one for one in status if one not in _NEVER],
            "task": queries.listed(query, "filter[taskIdentifier]"),
            "tag": queries.listed(query, "filter[tag]"),
            "queue": queries.listed(query, "filter[queue]"),
            "batch": query.get("filter[batch]"),
            "is_test": queries.truth(query, "filter[isTest]"),
            **queries.created(query),
        }
        if any(query.get(f"filter[{name}]") for name in _WITHOUT_MEANING):
            filters["status"] = []
        try:
            page = list_runs(
                **filters,
                **queries.page_of(query),
                convert=_same,
                within=self.principal.visible,
                with_packets=False,
            )
        except QueryError:
            raise
        except InvalidInput as error:
            raise QueryError(query=str(error)) from None
        turns = {"next": page.next, "previous": page.previous}
        return Response(
            {
                "data": [{**common_fields(run), "env": {"id": ENVIRONMENT_ID, "name": "default"}} for run in page.data],
                "pagination": {name: cursor for name, cursor in turns.items() if cursor},
            }
        )


def _same(run: RealtimeRun) -> RealtimeRun:
    return run


class CancelView(ApiView):
    def need(self) -> rules.Need:
        run_id = self.kwargs["run_id"]
        return rules.cancel(run_id, find_row(run_id))

    @described(summary="Cancel a run and its children", request=None, responses=Id)
    def post(self, request: Request, run_id: str) -> Response:
        return Response({"id": runs.cancel(run_id).id})


class ReplayRequest(serializers.Serializer[Any]):
    payload = AnyJson(required=False)
    payloadType = serializers.ChoiceField([JSON, SUPER_JSON], required=False, default=JSON)
    metadata = AnyJson(required=False)
    tags = OneOrMore(required=False)
    queue = AnyJson(required=False, help_text="A name, or {name}")
    concurrencyKey = Text(required=False)
    machine = AnyJson(required=False, help_text="Ignored")
    version = AnyJson(required=False, help_text="Ignored")
    region = AnyJson(required=False, help_text="Ignored")
    delay = DurationOrNumber(required=False)
    ttl = DurationOrNumber(required=False)
    idempotencyKey = Text(required=False)
    idempotencyKeyTTL = Text(required=False)
    maxAttempts = serializers.IntegerField(required=False)
    maxDuration = DurationOrNumber(required=False)
    priority = DurationOrNumber(required=False)


class ReplayView(ApiView):
    def need(self) -> rules.Need:
        return rules.only_with_key("replay", find_row(self.kwargs["run_id"]))

    @described(summary="Trigger a run like this one", request=ReplayRequest, responses=Id)
    def post(self, request: Request, run_id: str) -> Response:
        given = body.parse_object(self.raw_body(largest_trigger()), may_be_empty=True)
        if unknown := given.keys() - ReplayRequest().fields.keys():
            raise InvalidInput(f"{min(unknown)}: this cannot be changed by a replay.")
        wish = self.valid(ReplayRequest, may_be_empty=True, limit=largest_trigger())
        overrides = _overrides(wish)

        def make() -> Made:
            return Made(runs.replay(run_id, **overrides).id)

        return Response({"id": make_once(request._request, self.principal, f"replay {run_id}", make).id})


def _overrides(wish: dict[str, Any]) -> dict[str, Any]:
    options = {**wish, "metadataType": JSON}
    if "queue" in options:
        name = options["queue"].get("name") if isinstance(options["queue"], dict) else options["queue"]
        if not isinstance(name, str):
            raise InvalidInput("queue: expected a name, or an object with a name.")
        options["queue"] = {"name": name}
    found: dict[str, Any] = dict(options_of({"options": options}))
    if "payload" in wish:
        found["payload"] = packet_of({"payload": wish["payload"], "options": {"payloadType": wish["payloadType"]}})
    return found


class RescheduleRequest(serializers.Serializer[Any]):
    delay = DurationOrNumber(help_text="A duration, or a time in ISO 8601")


class RescheduleView(ApiView):
    def need(self) -> rules.Need:
        return rules.only_with_key("reschedule", find_row(self.kwargs["run_id"]))

    @described(summary="Give a delayed run another start", request=RescheduleRequest, responses=RunSchema)
    def post(self, request: Request, run_id: str) -> Response:
        run = runs.reschedule(run_id, self.valid(RescheduleRequest)["delay"])
        return Response(whole_object(run, self.principal))


class ResultView(ApiView):
    def need(self) -> rules.Need:
        return rules.only_with_key("read", find_row(self.kwargs["run_id"]))

    @described(
        summary="How a run ended; 404 before",
        responses=inline_serializer(
            "RunResult",
            {
                "ok": serializers.BooleanField(),
                "id": serializers.CharField(),
                "taskIdentifier": serializers.CharField(),
                "output": serializers.CharField(required=False),
                "outputType": serializers.CharField(required=False),
                "error": serializers.DictField(required=False),
            },
        ),
    )
    def get(self, request: Request, run_id: str) -> Response:
        run = runs.retrieve(run_id)
        if not run.is_completed:
            raise RunNotFound(run_id)
        return Response(result_object(run))
