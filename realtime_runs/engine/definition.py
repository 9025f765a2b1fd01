"""A task as the engine sees it: the function, its options, its types and its hooks."""

import inspect
import json
import typing
from collections.abc import Callable
from functools import cached_property
from typing import Any, Final, Generic

from django.core.exceptions import ImproperlyConfigured
from pydantic import TypeAdapter, ValidationError

from realtime_runs.durations import Duration, parse_duration
from realtime_runs.engine.context import RunContext
from realtime_runs.engine.retry import Retry
from realtime_runs.exceptions import NotJson, OutputInvalid, PayloadInvalid, TooLarge
from realtime_runs.live.snapshot import O, P
from realtime_runs.packets import JSON, Packet, pack_output, unpack
from realtime_runs.statuses import FINAL, RunStatus

Hook = Callable[..., Any]
HOOKS: Final = ("on_start", "on_success", "on_failure", "on_cancel")


def hook_after(status: RunStatus) -> str:
    """The hook that belongs to a final status."""
    if status not in FINAL:
        raise ValueError(f"{status} is not final.")
    return {RunStatus.COMPLETED: "on_success", RunStatus.CANCELED: "on_cancel"}.get(status, "on_failure")


class TaskDefinition(Generic[P, O]):
    """A registered function. Its first parameter is the payload; one called `ctx`, or annotated RunContext, gets the
    context.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        id: str,
        queue: str,
        retry: Retry,
        ttl: Duration | None,
        max_duration: Duration | None,
    ) -> None:
        self.id = id
        self.function = function
        self.queue = queue
        self.retry = retry
        self.ttl = ttl
        self.max_duration = None if max_duration is None else parse_duration(max_duration, "max_duration")
        if ttl is not None:
            parse_duration(ttl, "ttl")
        self.is_async = inspect.iscoroutinefunction(function)
        self.hooks: dict[str, Hook] = {}
        self._payload_parameter, self._context_parameter = self._read_signature()

    def _read_signature(self) -> tuple[inspect.Parameter | None, str | None]:
        payload: inspect.Parameter | None = None
        context: str | None = None
        self._in_order: list[str] = []  # how positional arguments are given
        for parameter in inspect.signature(self.function).parameters.values():
            if parameter.name == "ctx" or parameter.annotation in (RunContext, "RunContext"):
                context = parameter.name
                if parameter.kind is not parameter.KEYWORD_ONLY:
                    self._in_order.append("context")
            elif payload is None and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                payload = parameter
                self._in_order.append("payload")
            elif parameter.default is parameter.empty and parameter.kind not in (
                parameter.VAR_POSITIONAL,
                parameter.VAR_KEYWORD,
            ):
                raise ImproperlyConfigured(
                    f"Task {self.id!r}: a task takes a payload and, if it wants, `ctx`; "
                    f"nothing can fill its parameter {parameter.name!r}."
                )
        return payload, context

    @cached_property
    def _hints(self) -> dict[str, Any]:
        # When first used, not when decorated: an annotation may name a class that is defined further down.
        return typing.get_type_hints(self.function, include_extras=True)

    @cached_property
    def _payload_type(self) -> TypeAdapter[Any] | None:
        """None where any JSON value will do."""
        hint = self._hints.get(self._payload_parameter.name, Any) if self._payload_parameter else Any
        return None if hint is Any else TypeAdapter(hint)

    @cached_property
    def _output_type(self) -> TypeAdapter[Any] | None:
        hint = self._hints.get("return", Any)
        return None if hint is Any else TypeAdapter(hint)

    def check_types(self) -> None:
        """Build what the annotations say. Raises whatever pydantic or Python has against them."""
        _ = (self._payload_type, self._output_type)

    def payload(self, packet: Packet) -> P:
        """The typed payload of a packet. Raises PayloadInvalid with the field errors."""
        if self._payload_parameter is None:
            if unpack(packet) in (None, {}):
                return typing.cast(P, None)
            raise PayloadInvalid(self.id, [{"loc": (), "msg": "this task takes no payload", "type": "no_payload"}])
        if packet.text is None and self._payload_parameter.default is not inspect.Parameter.empty:
            return typing.cast(P, self._payload_parameter.default)
        return typing.cast(P, self._validate(self._payload_type, packet))

    def output(self, packet: Packet) -> O:
        return typing.cast(O, self._validate(self._output_type, packet))

    def _validate(self, type_: TypeAdapter[Any] | None, packet: Packet) -> Any:
        if type_ is None:
            return unpack(packet)
        # From JSON, so that trigger and attempt, Python and HTTP all see the same value.
        is_json = packet.text is not None and packet.type == JSON
        text = packet.text if is_json else json.dumps(unpack(packet))
        try:
            return type_.validate_json(text or "null")
        except ValidationError as error:
            if error.errors()[0]["type"] == "json_invalid":  # a lone surrogate in an output
                return type_.validate_python(json.loads(text or "null"))
            errors = error.errors(include_url=False, include_context=False, include_input=False)
            raise PayloadInvalid(self.id, errors) from None

    def pack_output(self, value: Any) -> Packet:
        """The packet of what the function returned. Raises OutputInvalid."""
        try:
            if self._output_type is not None:
                value = self._output_type.dump_python(
                    self._output_type.validate_python(value), mode="json", by_alias=True
                )
            return pack_output(value)
        except (ValidationError, NotJson, TooLarge) as error:
            raise OutputInvalid(f"The output of task {self.id!r} cannot be used: {error}") from error

    def arguments(self, payload: P, context: RunContext) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """How to call the function."""
        values = {"payload": payload, "context": context}
        args = tuple(values[name] for name in self._in_order)
        if self._context_parameter is None or "context" in self._in_order:
            return args, {}
        return args, {self._context_parameter: context}

    def add_hook(self, name: str, hook: Hook) -> None:
        if name in self.hooks:
            raise ImproperlyConfigured(f"Task {self.id!r} has two {name} hooks.")
        self.hooks[name] = hook

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id!r}>"
