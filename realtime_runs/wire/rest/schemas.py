"""What answers look like, for the OpenAPI description. The answers themselves are made by `wire.run_object`."""

from typing import Any

from rest_framework import serializers

from realtime_runs.statuses import RunStatus
from realtime_runs.wire.rest.fields import AnyJson


class Id(serializers.Serializer[Any]):
    id = serializers.CharField()


class CommonRunSchema(serializers.Serializer[Any]):
    id = serializers.CharField()
    taskIdentifier = serializers.CharField()
    status = serializers.CharField(help_text=", ".join(RunStatus.values))
    v = serializers.IntegerField(help_text="Version; +1 at every change")
    createdAt = serializers.DateTimeField()
    updatedAt = serializers.DateTimeField()
    queuedAt = serializers.DateTimeField(required=False)
    startedAt = serializers.DateTimeField(required=False)
    finishedAt = serializers.DateTimeField(required=False)
    delayedUntil = serializers.DateTimeField(required=False)
    expiredAt = serializers.DateTimeField(required=False)
    isTest = serializers.BooleanField()
    tags = serializers.ListField(child=serializers.CharField())
    depth = serializers.IntegerField()
    triggerFunction = serializers.CharField()
    costInCents = serializers.FloatField()
    baseCostInCents = serializers.FloatField()
    durationMs = serializers.IntegerField()
    isQueued = serializers.BooleanField()
    isExecuting = serializers.BooleanField()
    isWaiting = serializers.BooleanField()
    isCompleted = serializers.BooleanField()
    isFailed = serializers.BooleanField()
    isSuccess = serializers.BooleanField()
    isCancelled = serializers.BooleanField()
    metadata = serializers.DictField()
    ttl = serializers.CharField(required=False)
    idempotencyKey = serializers.CharField(required=False)
    batchId = serializers.CharField(required=False)


class ErrorSchema(serializers.Serializer[Any]):
    name = serializers.CharField()
    message = serializers.CharField()
    stackTrace = serializers.CharField(required=False)


class RelatedRunsSchema(serializers.Serializer[Any]):
    root = CommonRunSchema(required=False)
    parent = CommonRunSchema(required=False)
    children = CommonRunSchema(many=True)


class RunSchema(CommonRunSchema):
    attemptCount = serializers.IntegerField()
    payload = AnyJson(required=False)
    output = AnyJson(required=False)
    error = ErrorSchema(required=False)
    realtimeStreams = serializers.ListField(child=serializers.CharField(), required=False)
    relatedRuns = RelatedRunsSchema()


class EnvironmentSchema(serializers.Serializer[Any]):
    id = serializers.CharField()
    name = serializers.CharField()


class ListedRunSchema(CommonRunSchema):
    env = EnvironmentSchema()


class PaginationSchema(serializers.Serializer[Any]):
    next = serializers.CharField(required=False)
    previous = serializers.CharField(required=False)


class RunListSchema(serializers.Serializer[Any]):
    data = ListedRunSchema(many=True)  # type: ignore[assignment]
    pagination = PaginationSchema()
