from datetime import UTC, datetime, timedelta

import pytest

from realtime_runs.engine.options import CheckedOptions, TriggerOptions, check_metadata_size, check_tags, hash_key
from realtime_runs.exceptions import InvalidOption, NotJson, TooLarge
from realtime_runs.tasks import Retry, Task


def job(payload=None):
    return payload


@pytest.fixture
def make_task():
    """A task that is not registered."""

    def make(**options):
        values = {"queue": "default", "retry": Retry(), "ttl": None, "max_duration": None} | options
        return Task(job, id="job", **values)

    return make


@pytest.fixture
def check(make_task):
    task = make_task()
    return lambda **options: CheckedOptions.check(task, options)


def test_options_that_are_not_given_come_from_the_settings(check):
    assert check() == CheckedOptions(
        tags=(),
        metadata="{}",
        idempotency_key="",
        idempotency_key_ttl=timedelta(days=30),
        delay=timedelta(0),
        ttl="",
        expires_after=None,
        queue="default",
        concurrency_key="",
        priority=0.0,
        max_attempts=3,
        max_duration=None,
        is_test=False,
    )


def test_the_task_decides_before_the_settings(make_task):
    task = make_task(queue="slow", retry=Retry(max_attempts=9), ttl="1h", max_duration="5m")
    options = CheckedOptions.check(task, {})
    assert (options.queue, options.max_attempts, options.max_duration) == ("slow", 9, 300.0)
    assert (options.ttl, options.expires_after) == ("1h", timedelta(hours=1))


def test_the_caller_decides_before_the_task(make_task):
    task = make_task(queue="slow", retry=Retry(max_attempts=9), ttl="1h", max_duration="5m")
    options = CheckedOptions.check(task, {"queue": "quick", "max_attempts": 1, "ttl": 90, "max_duration": "1s"})
    assert (options.queue, options.max_attempts, options.max_duration) == ("quick", 1, 1.0)
    assert (options.ttl, options.expires_after) == ("90", timedelta(seconds=90))


def test_a_caller_may_take_the_tasks_ttl_away(make_task):
    options = CheckedOptions.check(make_task(ttl="1h"), {"ttl": None})
    assert (options.ttl, options.expires_after) == ("", None)


def test_an_option_that_does_not_exist_is_a_type_error(check):
    with pytest.raises(TypeError, match="unexpected option 'tag'"):
        check(tag="a")


def test_every_option_is_understood(check):
    given = {
        "tags": ["b", "a"],
        "metadata": {"progress": 0},
        "idempotency_key": "k",
        "idempotency_key_as_written": "order 7",
        "idempotency_key_ttl": "1h",
        "delay": "10s",
        "ttl": "1h30m",
        "queue": "q",
        "concurrency_key": "user:1",
        "priority": -2,
        "max_attempts": 4,
        "max_duration": timedelta(minutes=1),
        "is_test": True,
    }
    assert given.keys() == TriggerOptions.__annotations__.keys()
    assert check(**given) == CheckedOptions(
        tags=("a", "b"),
        metadata='{"progress":0}',
        idempotency_key="k",
        idempotency_key_ttl=timedelta(hours=1),
        delay=timedelta(seconds=10),
        ttl="1h30m",
        expires_after=timedelta(hours=1, minutes=30),
        queue="q",
        concurrency_key="user:1",
        priority=-2.0,
        max_attempts=4,
        max_duration=60.0,
        is_test=True,
        idempotency_key_as_written="order 7",
    )


@pytest.mark.parametrize(
    "options",
    [
        *({"tags": [1]}, {"tags": [None]}, {"tags": [["a"]]}, {"tags": b"ab"}, {"tags": 5}, {"tags": None}),
        *({"metadata": None}, {"metadata": []}, {"metadata": "{}"}, {"metadata": [("a", 1)]}),
        *({"idempotency_key": None}, {"idempotency_key": True}, {"idempotency_key": 1.5}, {"idempotency_key": ["a"]}),
        *({"idempotency_key_ttl": "soon"}, {"idempotency_key_ttl": -1}, {"idempotency_key_ttl": None}),
        *({"delay": "soon"}, {"delay": -1}, {"delay": "-1h"}, {"delay": None}, {"delay": datetime(2026, 1, 1)}),
        *({"ttl": "soon"}, {"ttl": -1}, {"ttl": True}, {"ttl": "101 years"}),
        *({"queue": None}, {"queue": "x" * 256}, {"concurrency_key": "x" * 256}, {"concurrency_key": []}),
        *({"priority": "1"}, {"priority": True}, {"priority": float("nan")}, {"priority": float("inf")}),
        *({"priority": 1e10}, {"priority": 10**400}, {"priority": None}),
        *({"max_attempts": 0}, {"max_attempts": -1}, {"max_attempts": 1001}, {"max_attempts": 1.5}),
        *({"max_attempts": True}, {"max_attempts": "3"}, {"max_attempts": None}),
        *({"max_duration": -1}, {"max_duration": "soon"}, {"max_duration": True}),
    ],
    ids=lambda options: str(options)[:40],
)
def test_options_without_meaning_are_refused(check, options):
    with pytest.raises(InvalidOption):
        check(**options)


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
@pytest.mark.parametrize("option", ["tags", "idempotency_key", "queue", "concurrency_key"])
def test_texts_that_no_database_could_keep_are_refused(check, option, text):
    with pytest.raises(NotJson):
        check(**{option: text})


@pytest.mark.parametrize(
    "value", [float("nan"), "\0", "\ud800", object(), 10**5000], ids=lambda value: type(value).__name__
)
def test_metadata_that_is_no_json_is_refused(check, value):
    with pytest.raises(NotJson, match=r"^metadata "):
        check(metadata={"a": value})


def test_a_time_is_as_good_as_a_delay(check):
    assert check(delay=datetime(2026, 1, 1, tzinfo=UTC)).delay == timedelta(0)


@pytest.mark.parametrize("option", ["idempotency_key", "queue", "concurrency_key"])
def test_a_number_may_name_something(check, option):
    assert getattr(check(**{option: 7}), option) == "7"


# tags


def test_one_tag_needs_no_list(check):
    assert check(tags="user:1").tags == ("user:1",)


def test_tags_are_sorted_and_blank_and_repeated_ones_are_dropped(check):
    assert check(tags=["b", " ", "a", "", "b", "\t"]).tags == ("a", "b")


@pytest.mark.parametrize("tag", ["é", "a:b", "a,b", "a b", "*", "$.a", "<b>", "'; --", "%s", "\U0001f600"])
def test_a_tag_may_hold_any_character(check, tag):
    assert check(tags=[tag]).tags == (tag,)


def test_tags_may_come_from_any_iterable(check):
    assert check(tags=(f"t{n}" for n in range(3))).tags == ("t0", "t1", "t2")
    assert check(tags={"x"}).tags == ("x",)


@pytest.mark.parametrize("letter", ["x", "é", "\U0001f600"])
def test_a_tag_has_at_most_128_characters(check, letter):
    assert check(tags=letter * 128).tags == (letter * 128,)
    with pytest.raises(TooLarge, match="has 129 characters; at most 128 are allowed") as caught:
        check(tags=["fine", letter * 129])
    assert (caught.value.size, caught.value.limit, caught.value.unit) == (129, 128, "characters")


def test_a_run_has_at_most_10_tags(check):
    ten = [f"t{n}" for n in range(10)]
    assert len(check(tags=[*ten, "t0", ""]).tags) == 10
    with pytest.raises(TooLarge, match="has 11 tags; at most 10 are allowed"):
        check(tags=[*ten, "one more"])


def test_tags_that_a_run_has_already_count():
    assert check_tags(["c", "a"], ["a", "b"]) == ("a", "b", "c")
    with pytest.raises(TooLarge):
        check_tags("new", [f"t{n}" for n in range(10)])


def test_the_limits_of_tags_are_settings(check, settings):
    settings.REALTIME_RUNS = settings.REALTIME_RUNS | {"MAX_TAGS": 1, "MAX_TAG_LENGTH": 2}
    assert check(tags="ab").tags == ("ab",)
    with pytest.raises(TooLarge, match="MAX_TAGS"):
        check(tags=["a", "b"])
    with pytest.raises(TooLarge, match="MAX_TAG_LENGTH"):
        check(tags="abc")


# sizes


@pytest.mark.parametrize("letter", ["x", "é", "\U0001f600"])
@pytest.mark.parametrize("room", [-1, 0, 1])
def test_metadata_is_measured_in_bytes(check, settings, letter, room):
    text = f'{{"a":"{letter * 4}"}}'
    size = len(text.encode())
    settings.REALTIME_RUNS = settings.REALTIME_RUNS | {"MAX_METADATA_BYTES": size + room}
    if room >= 0:
        assert check(metadata={"a": letter * 4}).metadata == text
        return
    with pytest.raises(TooLarge, match=rf"^metadata has {size} bytes; at most {size - 1} are allowed"):
        check(metadata={"a": letter * 4})


def test_metadata_may_have_256_kib_out_of_the_box():
    check_metadata_size("é" * (128 * 1024))
    with pytest.raises(TooLarge):
        check_metadata_size("é" * (128 * 1024) + "x")


def test_an_idempotency_key_has_at_most_2048_characters(check):
    assert check(idempotency_key="é" * 2048).idempotency_key == "é" * 2048
    with pytest.raises(InvalidOption, match="2,049 characters"):
        check(idempotency_key="x" * 2049)


@pytest.mark.parametrize("option", ["queue", "concurrency_key"])
def test_names_fit_their_columns(check, option):
    assert getattr(check(**{option: "é" * 255}), option) == "é" * 255


@pytest.mark.parametrize("ttl", [" 1h" + " " * 61, timedelta(days=36_500, microseconds=1), 1e9, "1h 1m 1s"])
def test_a_ttl_fits_its_column_as_it_was_written(check, ttl):
    assert 0 < len(check(ttl=ttl).ttl) <= 64


def test_max_attempts_goes_to_1000(check):
    assert check(max_attempts=1000).max_attempts == 1000


def test_a_priority_stays_on_the_calendar(check):
    century = 100 * 366 * 86_400
    assert [check(priority=value).priority for value in (century, -century)] == [century, -century]


def test_keys_are_told_apart_by_their_bytes(check):
    # No normalisation: é and e + accent are two keys. And a key that looks like a hash is not taken for one.
    keys = ["é", "e\u0301", "E\u0301", "a", "a ", hash_key("a")]
    assert len({hash_key(check(idempotency_key=key).idempotency_key) for key in keys}) == len(keys)
