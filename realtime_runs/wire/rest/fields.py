"""Serializer fields for values that the wire writes in more than one way."""

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers


@extend_schema_field({"oneOf": [{"type": "string"}, {"type": "number"}]})
class DurationOrNumber(serializers.Field[Any, Any, Any, Any]):
    """A text or a number; what it means is for the one who reads it."""

    def to_internal_value(self, data: Any) -> str | float:
        # The bound keeps numbers away that no calculation with times survives.
        if (isinstance(data, str) and len(data) <= 64) or (
            isinstance(data, int | float) and not isinstance(data, bool) and abs(data) < 1e12
        ):
            return data
        raise serializers.ValidationError("Expected a short text or a number.")

    def to_representation(self, value: Any) -> Any:
        return value


@extend_schema_field(OpenApiTypes.ANY)
class AnyJson(serializers.Field[Any, Any, Any, Any]):
    """Any JSON value, also null."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_null=True, **kwargs)

    def to_internal_value(self, data: Any) -> Any:
        return data

    def to_representation(self, value: Any) -> Any:
        return value


@extend_schema_field({"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]})
class OneOrMore(serializers.Field[Any, Any, Any, Any]):
    """A text, or a list of texts; always read as a list."""

    def to_internal_value(self, data: Any) -> list[str]:
        values = [data] if isinstance(data, str) else data
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise serializers.ValidationError("Expected a text or a list of texts.")
        return values

    def to_representation(self, value: Any) -> Any:
        return value
