from datetime import UTC, datetime, timedelta, timezone

import pytest
import time_machine
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from realtime_runs.durations import LONGEST, parse_duration, parse_when
from realtime_runs.exceptions import InvalidOption


@pytest.mark.parametrize(
    ("given_value", "seconds"),
    [
        # wire-protocol 1.10
        *(("2w", 14 * 86_400), ("3d", 3 * 86_400), ("4h", 4 * 3600), ("4hr", 4 * 3600), ("5m", 300), ("6s", 6)),
        *(("1h30m", 5400), ("1w2d3h4m5s", 788_645)),
        # people
        *(("90", 90), ("0", 0), ("0s", 0), ("2 days", 2 * 86_400), ("1 hour 5 minutes", 3900), (" 10m ", 600)),
        *((90, 90), (0, 0), (1.5, 1.5), (0.001, 0.001), (timedelta(minutes=10), 600), (timedelta(0), 0)),
        (LONGEST, LONGEST.total_seconds()),
    ],
)
def test_durations_are_seconds_timedeltas_or_texts(given_value, seconds):
    assert parse_duration(given_value) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "value",
    [
        *("", " ", "soon", "h", "10 parsecs", "1h-30m", "5m\0", "inf", "nan", "m10", "0x10", "1h" + " " * 63, "[1]"),
        *(None, True, False, [], {}, b"10m", object(), 1j),
        *(float("nan"), float("inf"), -float("inf"), 10**400),
    ],
)
def test_what_is_no_duration_is_refused_by_name(value):
    with pytest.raises(InvalidOption, match=r"^ttl .* must be seconds, a timedelta or text such as '1h30m'"):
        parse_duration(value, "ttl")


@pytest.mark.parametrize("value", [-1, -0.001, "-5m", "-1", timedelta(microseconds=-1)])
def test_negative_durations_are_refused(value):
    with pytest.raises(InvalidOption, match="is negative"):
        parse_duration(value)


@pytest.mark.parametrize("value", ["5300w", LONGEST.total_seconds() + 1, LONGEST + timedelta(1), timedelta.max, 1e11])
def test_more_than_a_century_is_refused(value):
    # Beyond it lie the ends of the databases' calendars.
    with pytest.raises(InvalidOption, match="longer than 100 years"):
        parse_duration(value)


@hypothesis_settings(deadline=None)
@given(st.timedeltas(timedelta(0), LONGEST))
def test_a_timedelta_may_be_stored_as_its_text(value):
    # Run.ttl is a text; a replay reads it again.
    assert parse_duration(str(value)) == pytest.approx(value, abs=timedelta(milliseconds=1))


hostile = st.text(max_size=70) | st.lists(st.sampled_from("0123456789.:-+ wdhmsray\u0661"), max_size=66).map("".join)


@hypothesis_settings(deadline=None, max_examples=200)
@given(hostile | st.floats() | st.integers())
def test_any_text_or_number_is_a_duration_or_refused(value):
    try:
        found = parse_duration(value)
    except InvalidOption:
        return
    assert timedelta(0) <= found <= LONGEST


@pytest.fixture
def noon():
    with time_machine.travel(datetime(2026, 6, 1, 12, tzinfo=UTC), tick=False):
        yield datetime(2026, 6, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=9)), timezone(timedelta(hours=-3.5))])
def test_a_time_is_as_far_as_it_lies_ahead_in_any_zone(noon, zone):
    assert parse_when((noon + timedelta(hours=2)).astimezone(zone)) == timedelta(hours=2)


@pytest.mark.parametrize(
    "value",
    [
        datetime(2026, 6, 1, 11, 59, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=UTC),
        # Before year 1 in UTC, which datetime cannot say.
        datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
    ],
)
def test_a_time_in_the_past_is_now(noon, value):
    assert parse_when(value) == timedelta(0)


@pytest.mark.parametrize("value", ["10m", 600, timedelta(minutes=10)])
def test_a_delay_may_be_a_duration(value):
    assert parse_when(value) == timedelta(minutes=10)


def test_a_naive_time_is_refused_because_it_means_different_instants():
    with pytest.raises(InvalidOption, match="has no time zone"):
        parse_when(datetime(2026, 6, 1))


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=-14))])
def test_a_time_centuries_ahead_is_refused(zone):
    with pytest.raises(InvalidOption, match="longer than 100 years"):
        parse_when(datetime.max.replace(tzinfo=zone))
