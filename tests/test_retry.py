import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from realtime_runs.exceptions import InvalidOption
from realtime_runs.tasks import Retry


def test_waits_grow_by_the_factor_up_to_the_longest():
    retry = Retry(factor=3, min_seconds=2, max_seconds=50, jitter=False)
    assert [retry.seconds_after(attempt) for attempt in range(1, 6)] == [2, 6, 18, 50, 50]


def test_the_waits_out_of_the_box():
    assert Retry() == Retry(max_attempts=None, factor=2, min_seconds=1, max_seconds=60, jitter=True)
    waits = [Retry(jitter=False).seconds_after(attempt) for attempt in range(1, 9)]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]


def test_jitter_draws_between_half_and_all_of_the_wait():
    waits = [Retry(min_seconds=8).seconds_after(1) for _ in range(500)]
    assert 4 <= min(waits) < 4.5
    assert 7.5 < max(waits) <= 8
    assert len(set(waits)) > 400


def test_a_factor_of_one_waits_the_same_each_time():
    assert {Retry(factor=1, min_seconds=5, jitter=False).seconds_after(n) for n in (1, 2, 50)} == {5}


def test_no_wait_at_all_is_possible():
    assert Retry(min_seconds=0, max_seconds=0).seconds_after(3) == 0


def test_attempts_are_those_of_the_setting_unless_given(settings):
    settings.REALTIME_RUNS = settings.REALTIME_RUNS | {"MAX_ATTEMPTS": 7}
    assert (Retry().attempts, Retry(max_attempts=2).attempts, Retry.once().attempts) == (7, 2, 1)


@pytest.mark.parametrize(
    "options",
    [
        *({"max_attempts": 0}, {"max_attempts": -1}, {"max_attempts": 2.5}, {"max_attempts": True}),
        *({"factor": 0.5}, {"factor": float("nan")}, {"factor": 0}),
        *({"min_seconds": -1}, {"min_seconds": 61}, {"min_seconds": float("nan")}),
        *({"max_seconds": 0.5}, {"max_seconds": float("nan")}, {"max_seconds": float("inf")}),
    ],
    ids=str,
)
def test_a_retry_without_meaning_is_refused_where_it_is_written(options):
    with pytest.raises(InvalidOption):
        Retry(**options)


@hypothesis_settings(deadline=None)
@given(
    st.floats(1, 1e300) | st.integers(1, 10**30),
    st.floats(0, 1e9),
    st.floats(0, 1e9),
    st.integers(1, 1000),
    st.booleans(),
)
def test_no_attempt_waits_longer_than_the_longest(factor, one, other, attempt, jitter):
    least, most = sorted((one, other))
    retry = Retry(factor=factor, min_seconds=least, max_seconds=most, jitter=jitter)
    assert least / 2 <= retry.seconds_after(attempt) <= most
