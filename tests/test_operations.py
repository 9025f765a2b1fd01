import copy
import json
import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from realtime_runs.engine.operations import Operation, apply
from realtime_runs.exceptions import InvalidOption


def after(metadata, *operations):
    return apply([Operation(*operation) for operation in operations], metadata)


# The rows of wire-protocol 6.1: operation, metadata before, metadata after.
ROWS = {
    "set makes a key": (("set", "a", {"b": 1}), {}, {"a": {"b": 1}}),
    "set replaces a value": (("set", "a", None), {"a": [1]}, {"a": None}),
    "set leaves other keys": (("set", "a", 1), {"b": 2}, {"b": 2, "a": 1}),
    "delete removes a key": (("delete", "a"), {"a": 1, "b": 2}, {"b": 2}),
    "delete of an absent key is silent": (("delete", "a"), {"b": 2}, {"b": 2}),
    "delete takes its key literally": (("delete", "$.a.b"), {"a": {"b": 1}}, {"a": {"b": 1}}),
    "delete finds a literal key that looks like a path": (("delete", "$.a"), {"$.a": 1, "a": 2}, {"a": 2}),
    "append to an absent key makes a list": (("append", "a", 1), {}, {"a": [1]}),
    "append adds to a list": (("append", "a", 2), {"a": [1]}, {"a": [1, 2]}),
    "append of a list adds one element": (("append", "a", [2, 3]), {"a": [1]}, {"a": [1, [2, 3]]}),
    "append of a list to an absent key nests it": (("append", "a", [1]), {}, {"a": [[1]]}),
    "append to something else makes a pair": (("append", "a", 2), {"a": "x"}, {"a": ["x", 2]}),
    "append to null makes a pair": (("append", "a", 2), {"a": None}, {"a": [None, 2]}),
    "append to an object makes a pair": (("append", "a", 2), {"a": {"b": 1}}, {"a": [{"b": 1}, 2]}),
    "remove drops all equal elements": (("remove", "a", 1), {"a": [1, 2, 1, 1.0]}, {"a": [2]}),
    "remove compares deeply": (("remove", "a", {"b": [1]}), {"a": [{"b": [1]}, {"b": []}]}, {"a": [{"b": []}]}),
    "remove knows true from 1": (("remove", "a", True), {"a": [1, True, 1.0]}, {"a": [1, 1.0]}),
    "remove knows 0 from false": (("remove", "a", 0), {"a": [False, 0, None]}, {"a": [False, None]}),
    "remove knows true from 1 deep inside": (("remove", "a", [1]), {"a": [[True]]}, {"a": [[True]]}),
    "remove knows a text from a number": (("remove", "a", "1"), {"a": [1, "1"]}, {"a": [1]}),
    "remove of a list drops that element": (("remove", "a", [1]), {"a": [[1], 1]}, {"a": [1]}),
    "remove from what is no list is not applied": (("remove", "a", "x"), {"a": "x"}, {"a": "x"}),
    "remove from an absent key is not applied": (("remove", "a", 1), {}, {}),
    "increment adds": (("increment", "a", 2), {"a": 1}, {"a": 3}),
    "increment by a negative number subtracts": (("increment", "a", -2.5), {"a": 1}, {"a": -1.5}),
    "increment makes an absent key": (("increment", "a", 2), {}, {"a": 2}),
    "increment counts a text as 0": (("increment", "a", 2), {"a": "40"}, {"a": 2}),
    "increment counts true as 0": (("increment", "a", 2), {"a": True}, {"a": 2}),
    "increment counts null as 0": (("increment", "a", 2), {"a": None}, {"a": 2}),
    "increment counts a list as 0": (("increment", "a", 2), {"a": [1]}, {"a": 2}),
    "update replaces everything": (("update", "", {"b": 1}), {"a": 1}, {"b": 1}),
    "update may empty it": (("update", "", {}), {"a": 1}, {}),
    "update takes its keys literally": (("update", "", {"$.a.b": 1}), {}, {"$.a.b": 1}),
    # keys and paths
    "a key with dots is literal": (("set", "a.b", 1), {"a": {}}, {"a": {}, "a.b": 1}),
    "a lone dollar is literal": (("set", "$", 1), {}, {"$": 1}),
    "an empty key is literal": (("set", "", 1), {}, {"": 1}),
    "a path reaches into objects": (("set", "$.a.b", 1), {"a": {"b": 0, "c": 2}}, {"a": {"b": 1, "c": 2}}),
    "a path of one segment is a key": (("set", "$.a", 1), {}, {"a": 1}),
    "a missing last segment is made": (("set", "$.a.b", 1), {"a": {}}, {"a": {"b": 1}}),
    "a missing parent is not": (("set", "$.a.b", 1), {}, {}),
    "a parent that is no container is not replaced": (("set", "$.a.b", 1), {"a": "x"}, {"a": "x"}),
    "append makes a missing last segment": (("append", "$.x", 1), {}, {"x": [1]}),
    "append below a missing parent does nothing": (("append", "$.x.y", 1), {}, {}),
    "increment makes a missing last segment": (("increment", "$.x", 1), {}, {"x": 1}),
    "increment below a missing parent does nothing": (("increment", "$.x.y", 1), {}, {}),
    "remove makes no last segment": (("remove", "$.a.b", 1), {"a": {}}, {"a": {}}),
    "remove reaches into a path": (("remove", "$.a.b", 1), {"a": {"b": [1, 2]}}, {"a": {"b": [2]}}),
    "a number addresses an element": (("set", "$.a.1.b", 9), {"a": [{}, {"b": 1}]}, {"a": [{}, {"b": 9}]}),
    "a number addresses a key of an object": (("set", "$.a.1", 9), {"a": {"1": 0}}, {"a": {"1": 9}}),
    "brackets do not address elements": (("set", "$.a[0]", 9), {"a": [1]}, {"a": [1], "a[0]": 9}),
    "one past the end extends a list": (("set", "$.a.1", 9), {"a": [1]}, {"a": [1, 9]}),
    "further past the end does nothing": (("set", "$.a.2", 9), {"a": [1]}, {"a": [1]}),
    "a negative number addresses no element": (("set", "$.a.-1", 9), {"a": [1]}, {"a": [1]}),
    "a name addresses no element": (("set", "$.a.b", 9), {"a": [1]}, {"a": [1]}),
    "digits of other scripts address no element": (("set", "$.a.\u0660", 9), {"a": [1]}, {"a": [1]}),
    "a star matches all elements": (("increment", "$.a.*.n", 1), {"a": [{"n": 1}, {}]}, {"a": [{"n": 2}, {"n": 1}]}),
    "a star matches all values of an object": (("set", "$.a.*", 0), {"a": {"b": 1, "c": 2}}, {"a": {"b": 0, "c": 0}}),
    "a star as the last segment matches elements": (("set", "$.a.*", 0), {"a": [1, 2]}, {"a": [0, 0]}),
    "a star matches nothing in an empty list": (("set", "$.a.*", 0), {"a": []}, {"a": []}),
    "two stars match all pairs": (("set", "$.*.*", 0), {"a": {"b": 1}, "c": [2]}, {"a": {"b": 0}, "c": [0]}),
    "a star in a literal key is literal": (("set", "*", 0), {"a": 1}, {"a": 1, "*": 0}),
    "an empty segment is a key": (("set", "$.a..b", 1), {"a": {"": {}}}, {"a": {"": {"b": 1}}}),
    "constructor is allowed where it is literal": (("set", "constructor", 1), {}, {"constructor": 1}),
}  # fmt: skip


@pytest.mark.parametrize(("operation", "before", "expected"), ROWS.values(), ids=ROWS)
def test_operations_do_what_the_protocol_says(operation, before, expected):
    result = after(before, operation)
    # By their JSON, in which true is not 1.
    assert json.dumps(result, sort_keys=True) == json.dumps(expected, sort_keys=True)


@pytest.mark.parametrize(
    "key",
    [
        *("__proto__", "$.__proto__", "$.a.__proto__", "$.__proto__.a", "$.constructor", "$.a.constructor.b"),
        *("$.prototype", "$.a.prototype", "$."),
    ],
)
@pytest.mark.parametrize("kind", ["set", "delete", "append", "remove", "increment"])
def test_keys_that_poison_javascript_objects_are_refused(kind, key):
    with pytest.raises(InvalidOption, match="cannot be a metadata key"):
        Operation(kind, key, 1)


@pytest.mark.parametrize("value", ["1", None, True, [1], {}, math.nan, math.inf, -math.inf])
def test_only_numbers_that_json_has_increment(value):
    with pytest.raises(InvalidOption):
        Operation("increment", "a", value)


@pytest.mark.parametrize("value", [None, [], "x", 1])
def test_only_an_object_replaces_the_metadata(value):
    with pytest.raises(InvalidOption, match="must be an object"):
        Operation("update", "", value)


def test_a_key_is_a_text():
    with pytest.raises(InvalidOption, match="is a text"):
        Operation("set", 1, 1)


def test_operations_are_applied_in_order():
    assert after({}, ("set", "a", 1), ("increment", "a", 2), ("append", "a", "x")) == {"a": [3, "x"]}


def test_the_example_of_the_protocol():
    assert after({"log": ["x"]}, ("set", "a", {"b": 1}), ("increment", "n", 2)) == {"log": ["x"], "a": {"b": 1}, "n": 2}


def test_a_value_that_was_set_is_a_copy():
    value = {"list": [1]}
    result = after({}, ("set", "a", value), ("append", "$.a.list", 2))
    assert (value, result) == ({"list": [1]}, {"a": {"list": [1, 2]}})


def test_each_place_of_a_star_gets_a_copy():
    result = after({"a": {"b": 0, "c": 0}}, ("set", "$.a.*", []), ("append", "$.a.b", 1))
    assert result == {"a": {"b": [1], "c": []}}


# Any JSON, and operations that are likely to hit something in it.
short_texts = st.text(max_size=3).filter(lambda text: not text.startswith("$."))  # those are paths
names = st.sampled_from(["a", "b", "0", "1", "", "*", "a.b", "$", "é"]) | short_texts
finite = st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | st.integers() | finite | st.text(max_size=5)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4), max_leaves=12
)
objects = st.dictionaries(names, values, max_size=5)
segments = st.sampled_from(["a", "b", "0", "1", "2", "*", "", "é", "-1"])
keys = names | st.lists(segments, min_size=1, max_size=4).map(lambda parts: "$." + ".".join(parts)).filter("$.".__ne__)
numbers = st.integers(-(10**30), 10**30) | st.floats(-1e100, 1e100)
operations = st.one_of(
    st.builds(Operation, st.sampled_from(["set", "append", "remove"]), keys, values),
    st.builds(Operation, st.just("delete"), keys),
    st.builds(Operation, st.just("increment"), keys, numbers),
    st.builds(Operation, st.just("update"), st.just(""), objects),
)


@settings(deadline=None, max_examples=150)
@given(objects, st.lists(operations, max_size=6))
# Beyond what a float can hold: JSON has such numbers.
@example({"a": 10**400}, [Operation("increment", "a", 1.5)])
@example({"a": 1.5}, [Operation("increment", "a", 10**400)])
@example({"a": 1e308}, [Operation("increment", "a", 1e308)])
def test_valid_operations_make_json_from_any_json_and_never_fail(metadata, todo):
    result = apply(todo, metadata)
    assert isinstance(result, dict)
    assert json.loads(json.dumps(result, allow_nan=False)) == result


@settings(deadline=None)
@given(objects, st.lists(operations, max_size=6))
def test_what_is_given_is_left_alone(metadata, todo):
    before = copy.deepcopy((metadata, todo))
    result = apply(todo, metadata)
    for value in result.values():  # also by a change of the result
        if isinstance(value, dict | list):
            value.clear()
    assert (metadata, todo) == before


@settings(deadline=None)
@given(objects, st.lists(operations, max_size=6).map(tuple), st.integers(0, 6))
def test_operations_may_be_applied_in_parts(metadata, todo, cut):
    assert apply(todo[cut:], apply(todo[:cut], metadata)) == apply(todo, metadata)
