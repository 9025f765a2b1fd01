"""Tasks as they are declared: their signature, their types, and the registry of them."""

import functools
import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from django.core.exceptions import ImproperlyConfigured
from pydantic import BaseModel, ConfigDict, Field, field_validator
from typing_extensions import TypedDict

from realtime_runs.engine import registry
from realtime_runs.exceptions import InvalidOption, OutputInvalid, PayloadInvalid, UnknownTask
from realtime_runs.packets import NOTHING, PLAIN_TEXT, SUPER_JSON, Packet
from realtime_runs.statuses import RunStatus
from realtime_runs.tasks import Retry, RunContext, Task, task


class Line(BaseModel):
    name: str
    count: int = Field(default=1, ge=1)


class Order(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    lines: list[Line]
    is_rush: bool = Field(default=False, alias="isRush")


class Secret(BaseModel):
    password: str

    @field_validator("password")
    @classmethod
    def is_long(cls, value):
        if len(value) < 100:
            raise ValueError("too short")
        return value


@dataclass
class Point:
    x: int
    y: int = 0


class Size(TypedDict):
    width: int


class Colour(Enum):
    RED = "red"


@pytest.fixture
def declare():
    """The task of a function, without registering it."""

    def make(function, **options):
        values = {"id": "job", "queue": "default", "retry": Retry(), "ttl": None, "max_duration": None} | options
        return Task(function, **values)

    return make


@pytest.fixture
def registered():
    """The registry, as it was before when the test is over."""
    before = dict(registry._tasks)
    yield registry._tasks
    registry._tasks.clear()
    registry._tasks.update(before)


def json_of(value):
    return Packet(json.dumps(value))


# -- the signature


def no_parameters():
    return ()


def only_payload(order):
    return (order,)


def payload_and_context(payload, ctx):
    return (payload, ctx)


def annotated_context(payload, context: RunContext):
    return (payload, context)


def context_annotated_by_name(payload, context: "RunContext"):
    return (payload, context)


def only_context(ctx):
    return (None, ctx)


def keyword_context(payload, *, ctx):
    return (payload, ctx)


def context_first(ctx: RunContext, payload):
    return (payload, ctx)


def positional_only(payload, ctx, /):
    return (payload, ctx)


def further_default(payload, ctx, retries=3):
    return (payload, ctx)


def with_rest(payload, *args, ctx, **kwargs):
    assert (args, kwargs) == ((), {})
    return (payload, ctx)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (no_parameters, ()),
        (only_payload, ("P",)),
        (payload_and_context, ("P", "C")),
        (annotated_context, ("P", "C")),
        (context_annotated_by_name, ("P", "C")),
        (only_context, (None, "C")),
        (keyword_context, ("P", "C")),
        (context_first, ("P", "C")),
        (positional_only, ("P", "C")),
        (further_default, ("P", "C")),
        (with_rest, ("P", "C")),
    ],
)
def test_a_function_gets_the_payload_and_the_context_where_it_wants_them(declare, function, expected):
    args, kwargs = declare(function).arguments("P", "C")
    assert function(*args, **kwargs) == expected


def two_needs(payload, other):
    pass


def keyword_need(payload, *, other):
    pass


def keyword_payload(*, payload):
    pass


@pytest.mark.parametrize(
    ("function", "name"), [(two_needs, "other"), (keyword_need, "other"), (keyword_payload, "payload")]
)
def test_a_parameter_that_nothing_can_fill_is_refused_when_declared(declare, function, name):
    with pytest.raises(ImproperlyConfigured, match=f"'job'.*nothing can fill its parameter '{name}'"):
        declare(function)


def test_sync_and_async_functions_are_told_apart(declare):
    async def later(payload, more=None):
        pass

    class Jobs:
        async def method(self):
            pass

    assert declare(later).is_async
    assert declare(functools.partial(later, more=1)).is_async
    assert declare(Jobs().method).is_async
    assert not declare(only_payload).is_async
    assert not declare(functools.partial(only_payload)).is_async


def test_calling_a_task_calls_the_function(declare):
    assert declare(payload_and_context)(1, ctx=2) == (1, 2)


# -- the payload


@pytest.mark.parametrize(
    ("type_", "given", "expected"),
    [
        (Order, {"lines": [{"name": "a"}]}, Order(lines=[Line(name="a")])),
        (Order, {"lines": [], "isRush": True}, Order(lines=[], is_rush=True)),
        (Order, {"lines": [], "is_rush": True}, Order(lines=[], is_rush=True)),
        (Point, {"x": 1}, Point(1)),
        (Size, {"width": 1}, {"width": 1}),
        (int, 5, 5),
        (float, 5, 5.0),
        (bool, True, True),
        (str, "é", "é"),
        (list[int], [1, 2], [1, 2]),
        (dict[str, Point], {"a": {"x": 1}}, {"a": Point(1)}),
        (set[int], [1, 1], {1}),
        (tuple[int, str], [1, "a"], (1, "a")),
        (int | None, None, None),
        (Literal["a", "b"], "b", "b"),
        (Colour, "red", Colour.RED),
        (Annotated[int, Field(gt=3)], 4, 4),
        (Decimal, "1.10", Decimal("1.10")),
        (uuid.UUID, str(uuid.UUID(int=1)), uuid.UUID(int=1)),
        (datetime, "2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        (timedelta, "PT1H", timedelta(hours=1)),
        (Any, {"any": [1]}, {"any": [1]}),
        (int, 10**4000, 10**4000),
    ],
    ids=lambda value: str(value)[:30],
)
def test_payloads_get_the_type_of_the_annotation(declare, type_, given, expected):
    def function(payload):
        pass

    function.__annotations__["payload"] = type_
    found = declare(function).payload(json_of(given))
    assert (type(found), found) == (type(expected), expected)


def later_class(payload: "Later"):
    pass


def test_an_annotation_may_name_a_class_that_is_defined_further_down(declare):
    assert declare(later_class).payload(json_of({"n": 1})) == Later(n=1)


def order_job(payload: Order, ctx: RunContext) -> Point:
    pass


def invalid(task_, packet):
    with pytest.raises(PayloadInvalid) as caught:
        task_.payload(packet)
    return caught.value


def test_a_payload_that_does_not_fit_says_which_fields_and_why(declare):
    error = invalid(declare(order_job), json_of({"lines": [{"name": "a", "count": 0}, {"count": "x"}]}))
    assert error.task_id == "job"
    assert [(item["loc"], item["type"]) for item in error.errors] == [
        (("lines", 0, "count"), "greater_than_equal"),
        (("lines", 1, "name"), "missing"),
        (("lines", 1, "count"), "int_parsing"),
    ]
    message = "The payload does not fit task 'job': lines.0.count: Input should be greater than or equal to 1; lines.1"
    assert str(error).startswith(message)


def test_field_errors_are_json_and_show_nothing_of_the_input(declare):
    def function(payload: Secret):
        pass

    error = invalid(declare(function), json_of({"password": "hunter2"}))
    assert [item.keys() for item in error.errors] == [{"loc", "msg", "type"}]
    assert "hunter2" not in json.dumps(error.errors) + str(error)
    assert "too short" in str(error)


def test_a_payload_that_is_wrong_as_a_whole_is_called_payload(declare):
    assert "job': payload: Input should be" in str(invalid(declare(order_job), json_of(5)))


def test_a_required_payload_must_be_there(declare):
    assert invalid(declare(order_job), NOTHING).errors[0]["loc"] == ()


def test_an_optional_payload_may_be_missing_or_null(declare):
    def function(payload: Order | None):
        pass

    assert declare(function).payload(NOTHING) is declare(function).payload(json_of(None)) is None


def with_default(payload: int = 7):
    pass


def test_a_missing_payload_is_the_default(declare):
    assert declare(with_default).payload(NOTHING) == 7


def test_null_is_a_payload_and_not_a_missing_one(declare):
    assert invalid(declare(with_default), json_of(None)).errors[0]["type"] == "int_type"


def test_a_payload_without_annotation_is_any_json(declare):
    assert declare(only_payload).payload(json_of({"a": [1, None]})) == {"a": [1, None]}
    assert declare(only_payload).payload(NOTHING) is None


@pytest.mark.parametrize("packet", [NOTHING, json_of(None), json_of({}), Packet('{"json": null}', SUPER_JSON)], ids=str)
def test_a_task_without_payload_takes_none(declare, packet):
    assert declare(no_parameters).payload(packet) is None


@pytest.mark.parametrize("value", [0, False, "", [], {"a": 1}], ids=repr)
def test_a_task_without_payload_refuses_one(declare, value):
    error = invalid(declare(no_parameters), json_of(value))
    assert error.errors == [{"loc": (), "msg": "this task takes no payload", "type": "no_payload"}]


def test_payloads_of_the_javascript_client_are_typed_too(declare):
    packet = Packet('{"json": {"lines": [{"name": "a"}]}, "meta": {"values": {}}}', SUPER_JSON)
    assert declare(order_job).payload(packet) == Order(lines=[Line(name="a")])


def test_plain_text_is_a_text(declare):
    def function(payload: str):
        pass

    assert declare(function).payload(Packet('"quoted"', PLAIN_TEXT)) == '"quoted"'
    assert invalid(declare(order_job), Packet("{}", PLAIN_TEXT))


# -- the output


@pytest.mark.parametrize(
    ("type_", "returned", "stored", "read"),
    [
        (Point, Point(1), {"x": 1, "y": 0}, Point(1)),
        (Order, Order(lines=[], is_rush=True), {"lines": [], "isRush": True}, Order(lines=[], is_rush=True)),
        (Order, {"lines": []}, {"lines": [], "isRush": False}, Order(lines=[])),
        (Decimal, Decimal("1.10"), "1.10", Decimal("1.10")),
        (set[int], {1}, [1], {1}),
        (None, None, None, None),
        (Any, (1, Point(2)), [1, {"x": 2, "y": 0}], [1, {"x": 2, "y": 0}]),
        (dict, {"a": 10**4000}, {"a": 10**4000}, {"a": 10**4000}),
        (str, "a\0b", "a\0b", "a\0b"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_outputs_go_through_their_type_both_ways(declare, type_, returned, stored, read):
    def function():
        pass

    function.__annotations__["return"] = type_
    packet = declare(function).pack_output(returned)
    assert json.loads(packet.text) == stored
    assert declare(function).output(packet) == read


@pytest.mark.parametrize(("type_", "value"), [(str, "\ud800"), (dict, {"a": "\ud800"}), (Any, "\ud800")], ids=repr)
def test_an_odd_character_in_an_output_does_not_make_it_unreadable(declare, type_, value):
    def function():
        pass

    function.__annotations__["return"] = type_
    job = declare(function)
    assert job.output(job.pack_output(value)) == value


@pytest.mark.parametrize(
    ("type_", "value"),
    [(int, "x"), (Point, {"y": 1}), (None, 1), (Any, float("nan")), (float, float("nan")), (Any, object())],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_an_output_that_cannot_be_used_says_of_which_task(declare, type_, value):
    def function():
        pass

    function.__annotations__["return"] = type_
    with pytest.raises(OutputInvalid, match="The output of task 'job' cannot be used"):
        declare(function).pack_output(value)


def test_an_output_that_is_too_large_cannot_be_used(declare, settings):
    settings.REALTIME_RUNS = settings.REALTIME_RUNS | {"MAX_OUTPUT_BYTES": 5}
    assert declare(only_payload).pack_output("abc").size == 5
    with pytest.raises(OutputInvalid, match="6 bytes"):
        declare(only_payload).pack_output("abcd")


@pytest.mark.parametrize("name", ["payload", "return"])
@pytest.mark.parametrize("annotation", ["Missing", object()], ids=["unknown name", "no type"])
def test_annotations_that_are_no_types_are_found_by_the_check(declare, name, annotation):
    def function(payload):
        pass

    function.__annotations__[name] = annotation
    job = declare(function)
    with pytest.raises(Exception, match=r"Missing|object"):
        job.check_types()


# -- the options of a task


@pytest.mark.parametrize("options", [{"ttl": "soon"}, {"ttl": -1}, {"max_duration": "soon"}, {"max_duration": -1}])
def test_durations_of_a_task_are_checked_when_declared(registered, options):
    with pytest.raises(InvalidOption):
        task(id="job", **options)(no_parameters)
    assert "job" not in registered


@pytest.mark.parametrize("task_id", ["", "x" * 256])
def test_a_task_id_has_1_to_255_characters(task_id):
    with pytest.raises(ImproperlyConfigured, match="1 to 255 characters"):
        task(id=task_id)


def test_attempts_are_given_once():
    with pytest.raises(ImproperlyConfigured, match="max_attempts inside of Retry"):
        task(id="job", max_attempts=2, retry=Retry())


def test_max_attempts_is_a_shortcut_for_a_retry(registered):
    assert task(id="job", max_attempts=2)(no_parameters).retry == Retry(max_attempts=2)


def test_a_task_has_one_hook_of_a_kind(declare):
    job = declare(no_parameters)
    assert job.on_failure(only_payload) is only_payload  # usable as a decorator
    with pytest.raises(ImproperlyConfigured, match="'job' has two on_failure hooks"):
        job.on_failure(only_payload)


# -- the registry


def test_a_second_task_with_the_same_id_is_an_error_that_names_both(registered):
    task(id="twice")(no_parameters)
    with pytest.raises(ImproperlyConfigured, match=r"'twice': .*\.no_parameters and .*\.only_payload"):
        task(id="twice")(only_payload)
    assert registry.get("twice").function is no_parameters


def test_the_same_function_may_be_declared_again_when_its_module_is_imported_again(registered):
    task(id="again")(no_parameters)
    newer = task(id="again")(no_parameters)
    assert registry.get("again") is newer


def test_one_function_may_be_two_tasks(registered):
    one, other = task(id="one")(no_parameters), task(id="other")(no_parameters)
    assert (registry.get("one"), registry.get("other")) == (one, other)


def test_tasks_of_all_installed_apps_are_found():
    assert {"t-echo", "echo", "import-airports"} <= set(registry.ids())  # of the apps `tests` and `project`


def test_an_unknown_task_is_an_error_that_names_the_known_ones():
    with pytest.raises(UnknownTask, match=r"^Task 'missing' does not exist\. Known tasks: .*t-echo, t-echo-sync"):
        registry.get("missing")
    assert registry.find("missing") is None


def test_sync_and_async_tasks_are_listed_apart():
    sync, other = registry.ids(is_async=False), registry.ids(is_async=True)
    assert "t-echo-sync" in sync
    assert "t-echo" in other
    assert sorted(sync + other) == sorted(registry.ids())


def test_tasks_are_found_by_the_end_they_want_to_hear_of(registered):
    task(id="hooked")(no_parameters).on_failure(print)
    for status in (RunStatus.FAILED, RunStatus.CRASHED, RunStatus.EXPIRED, RunStatus.TIMED_OUT):
        assert "hooked" in registry.with_hook_after(status)
    assert "hooked" not in registry.with_hook_after(RunStatus.COMPLETED)
    assert "hooked" not in registry.with_hook_after(RunStatus.CANCELED)


class Later(BaseModel):
    n: int
