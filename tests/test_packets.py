import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import BaseModel

from realtime_runs import packets
from realtime_runs.conf import DEFAULTS
from realtime_runs.exceptions import NotJson, TooLarge
from realtime_runs.packets import JSON, NOTHING, PLAIN_TEXT, SUPER_JSON, Packet


class Colour(Enum):
    RED = "red"


class Order(BaseModel):
    items: list[str] = []


@dataclass
class Point:
    x: object = 1


@pytest.fixture
def limit(settings):
    """`limit(MAX_PAYLOAD_BYTES=20)`"""

    def change(**values):
        settings.REALTIME_RUNS = settings.REALTIME_RUNS | values

    return change


def nested(depth):
    """Lists and objects in turn, so deep."""
    value = None
    for level in range(depth):
        value = [value] if level % 2 else {"k": value}
    return value


def circle():
    value = []
    value.append(value)
    return value


def circle_of_objects():
    point = Point()
    point.x = point
    return point


NO_JSON = {
    "NaN": float("nan"),
    "infinity": float("inf"),
    "minus infinity": [-float("inf")],
    "NaN as a key": {float("nan"): 1},
    "NaN in a dataclass": Point(float("nan")),
    "NUL": "a\0b",
    "NUL in a key": {"\0": 1},
    "NUL deep inside": {"a": [{"b": ("\0",)}]},
    "NUL in a dataclass": Point("\0"),
    "NUL in a model": Order(items=["\0"]),
    "NUL in a set": {"\0"},
    "NUL in bytes": b"\0",
    "NUL from a generator": (text for text in ["\0"]),
    "a lone surrogate": "\ud800",
    "a lone surrogate in a key": {"a": {"\udfff": 1}},
    "a lone surrogate in a dataclass": Point("\ud800"),
    "5,000 digits": 10**5000,
    "5,000 digits in a dataclass": Point(10**5000),
    "an unknown type": object(),
    "a class": Order,
    "a function": nested,
    "a tuple as a key": {(1, 2): 3},
    "bytes that are no text": b"\xff",
    "a circle": circle(),
    "a circle through an object": circle_of_objects(),
}


@pytest.mark.parametrize("value", NO_JSON.values(), ids=NO_JSON)
def test_a_payload_that_no_database_could_keep_is_refused(value):
    with pytest.raises(NotJson, match=r"^payload "):
        packets.pack_payload(value)


NO_JSON_TEXT = {
    "nothing": "",
    "half an object": '{"a": ',
    "two values": "1 2",
    "a trailing comma": "[1,]",
    "single quotes": "{'a': 1}",
    "NaN": "[NaN]",
    "infinity": "-Infinity",
    "a number beyond floats": "1e400",
    "5,000 digits": "1" * 5000,
    "NUL": '"\0"',
    "an escaped NUL": r'"\u0000"',
    "an escaped NUL in a key": r'{"\u0000": 1}',
    "a lone surrogate": '"\ud800"',
    "an escaped lone surrogate": r'["\ud800"]',
    "a byte order mark": "\ufeff{}",
    "far too deep": "[" * 100_000 + "]" * 100_000,
    "brackets that never open": "]" * 500,
    "brackets that never close": "[" * 500,
}


@pytest.mark.parametrize("type_", [JSON, SUPER_JSON])
@pytest.mark.parametrize("text", NO_JSON_TEXT.values(), ids=NO_JSON_TEXT)
def test_a_payload_text_that_is_no_json_is_refused(text, type_):
    with pytest.raises(NotJson, match=r"^payload "):
        packets.check_payload(Packet(text, type_))


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_plain_text_that_no_database_could_keep_is_refused(text):
    with pytest.raises(NotJson, match=r"^payload contains"):
        packets.check_payload(Packet(text, PLAIN_TEXT))


SERIALISED = {
    "a decimal": (Decimal("1.10"), "1.10"),
    "a time": (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05Z"),
    "a UUID": (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    "a model": (Order(items=["é"]), {"items": ["é"]}),
    "a dataclass": (Point([Decimal(1)]), {"x": ["1"]}),
    "a set": ({7}, [7]),
    "a tuple": ((1, "a"), [1, "a"]),
    "an enum": (Colour.RED, "red"),
    "bytes": (b"abc", "abc"),
    "a generator": ((n for n in range(3)), [0, 1, 2]),
    "numbers as keys": ({2: "a", None: "b", True: "c"}, {"2": "a", "null": "b", "true": "c"}),
    "an integer beyond 64 bits": (2**200, 2**200),
    "a pair of surrogates": ("\U0001f600", "\U0001f600"),
    "a text that spells NUL": (r"\u0000", r"\u0000"),
    "null": (None, None),
}


@pytest.mark.parametrize(("value", "expected"), SERIALISED.values(), ids=SERIALISED)
def test_payloads_may_be_anything_that_has_a_json_form(value, expected):
    packet = packets.pack_payload(value)
    assert packet.type == JSON
    assert packets.unpack(packet) == packets.check_payload(packet) == expected


@pytest.mark.parametrize("depth", [99, 100])
def test_nesting_up_to_the_limit_is_accepted(depth):
    value = nested(depth)
    packet = packets.pack_payload(value)
    assert packets.check_payload(packet) == value


@pytest.mark.parametrize("depth", [101, 5_000, 100_000])
def test_nesting_beyond_the_limit_is_refused(depth):
    with pytest.raises(NotJson, match="nested"):
        packets.pack_payload(nested(depth))
    with pytest.raises(NotJson, match="nested"):
        packets.check_payload(Packet("[" * depth + "]" * depth))


def test_the_limit_of_the_nesting_is_a_setting(limit):
    limit(MAX_JSON_DEPTH=3)
    assert packets.pack_payload([[[1]]]).text == "[[[1]]]"
    with pytest.raises(NotJson, match=r"more than 3 levels deep \(MAX_JSON_DEPTH\)"):
        packets.pack_payload([[[[1]]]])


def test_many_brackets_side_by_side_are_not_deep():
    value = [[], {}] * 500
    assert packets.check_payload(packets.pack_payload(value)) == value


def test_brackets_in_texts_do_not_count():
    # With quotes and backslashes, which end a text or do not.
    value = {"[" * 200: ["]" * 200, "{" * 200, r"\"[[[" * 200, "\\", "[" * 200]}
    assert packets.check_payload(packets.pack_payload(value)) == value


def test_brackets_after_a_text_count():
    text = '["\\\\",' + "[" * 100 + "]" * 100 + "]"
    with pytest.raises(NotJson, match="nested"):
        packets.check_payload(Packet(text))


# é has two bytes in UTF-8, an emoji four; the quotes are two more.
@pytest.mark.parametrize("text", ["x" * 18, "é" * 9, "\U0001f600" * 4 + "é"])
@pytest.mark.parametrize("room", [-1, 0, 1])
def test_sizes_are_measured_in_bytes(limit, text, room):
    size = len(json.dumps(text, ensure_ascii=False).encode())
    limit(MAX_PAYLOAD_BYTES=size + room, MAX_OUTPUT_BYTES=size + room)
    for pack, what in (
        (packets.pack_payload, "payload"),
        (packets.pack_output, "output"),
        (lambda value: packets.check_payload(Packet(f'"{value}"')), "payload"),
    ):
        if room >= 0:
            pack(text)
            continue
        with pytest.raises(TooLarge, match=rf"^{what} has {size} bytes; at most {size - 1} are allowed") as caught:
            pack(text)
        assert (caught.value.size, caught.value.limit, caught.value.unit) == (size, size - 1, "bytes")


def test_plain_text_is_measured_without_quotes(limit):
    limit(MAX_PAYLOAD_BYTES=4)
    assert packets.check_payload(Packet("éé", PLAIN_TEXT)) == "éé"
    with pytest.raises(TooLarge):
        packets.check_payload(Packet("ééx", PLAIN_TEXT))


@pytest.mark.parametrize(
    ("pack", "setting", "size"),
    [(packets.pack_payload, "MAX_PAYLOAD_BYTES", 3 * 2**20), (packets.pack_output, "MAX_OUTPUT_BYTES", 10 * 2**20)],
)
def test_the_limits_out_of_the_box(pack, setting, size):
    assert DEFAULTS[setting] == size
    assert pack("x" * (size - 2)).size == size
    with pytest.raises(TooLarge, match=setting):
        pack("x" * (size - 1))


def test_a_payload_is_measured_before_it_is_parsed(limit):
    limit(MAX_PAYLOAD_BYTES=3)
    with pytest.raises(TooLarge):
        packets.check_payload(Packet("not json at all"))


@pytest.mark.parametrize("type_", [JSON, SUPER_JSON])
def test_the_text_of_a_payload_is_left_as_it_came(type_):
    packet = Packet('{ "json" : 1.0, "a":\t"\\u00e9", "json" : 1E2 }', type_)
    packets.check_payload(packet)
    assert packet.text == '{ "json" : 1.0, "a":\t"\\u00e9", "json" : 1E2 }'


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"json": {"at": "2026-01-01"}, "meta": {"values": {"at": ["Date"]}}}', {"at": "2026-01-01"}),
        ('{"json": null}', None),
        ('{"json": [1, "a"]}', [1, "a"]),
        ('{"json": {"json": 1}}', {"json": 1}),
        ("{}", None),
    ],
)
def test_super_json_is_read_through_its_json_member(text, value):
    packet = Packet(text, SUPER_JSON)
    assert packets.check_payload(packet) == packets.unpack(packet) == value


def test_json_with_a_json_member_is_only_json():
    assert packets.unpack(Packet('{"json": 1}')) == {"json": 1}


def test_plain_text_is_not_parsed():
    packet = Packet('{"json": ', PLAIN_TEXT)
    assert packets.check_payload(packet) == packets.unpack(packet) == '{"json": '


def test_no_payload_is_not_null():
    assert packets.check_payload(NOTHING) is packets.unpack(NOTHING) is None
    assert (NOTHING.size, NOTHING.text) == (0, None)
    assert packets.pack_payload(None).text == "null"


# What a task made is kept, however odd: a character must not turn a finished run into a failed one.
@pytest.mark.parametrize("value", ["\ud800é", {"\udfff": ["a\0b"]}, "\0"])
def test_an_output_keeps_odd_characters_in_a_form_that_can_be_stored(value):
    packet = packets.pack_output(value)
    assert packets.unpack(packet) == value
    assert "\0" not in packet.text
    packet.text.encode()


@pytest.mark.parametrize("name", ["NaN", "infinity", "an unknown type", "a circle", "5,000 digits"])
def test_an_output_that_is_no_json_is_refused(name):
    with pytest.raises(NotJson, match=r"^output "):
        packets.pack_output(NO_JSON[name])


def test_an_output_is_measured_as_it_is_stored(limit):
    limit(MAX_OUTPUT_BYTES=7)
    assert packets.pack_output("é" * 2).size == 6
    with pytest.raises(TooLarge):
        packets.pack_output("\ud800")  # stored as six characters and the quotes


characters = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
texts = st.text(characters, max_size=8)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
any_json = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=20,
)


@hypothesis_settings(deadline=None)
@given(any_json)
def test_any_json_comes_back_as_it_was(value):
    packet = packets.pack_payload(value)
    assert packets.check_payload(packet) == value
    assert packets.unpack(packets.pack_output(value)) == value


@hypothesis_settings(deadline=None)
@given(any_json, st.booleans(), st.none() | st.integers(0, 3))
def test_any_way_of_writing_json_is_read(value, ascii_only, indent):
    assert packets.check_payload(Packet(json.dumps(value, ensure_ascii=ascii_only, indent=indent))) == value


@hypothesis_settings(deadline=None)
@given(st.text(max_size=40) | st.lists(st.sampled_from('[]{}":,\\ 01e-a\0\ud800'), max_size=30).map("".join))
def test_no_text_makes_the_check_fail_in_another_way(text):
    try:
        packets.check_payload(Packet(text))
    except NotJson:
        return
    json.loads(text)
