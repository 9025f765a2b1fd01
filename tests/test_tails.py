"""The newest chunks of a stream as its readers share them, and the place of one reader in it. No database."""

import random
from datetime import UTC, datetime

import pytest

from realtime_runs.exceptions import StreamGap
from realtime_runs.live import tails
from realtime_runs.live.chunks import Appended, Chunk, End
from realtime_runs.live.items import StreamRestarted
from realtime_runs.live.stream_follow import Cursor
from realtime_runs.live.stream_reading import Page
from realtime_runs.live.tails import Tail
from realtime_runs.models import StreamName

NAME = StreamName("run_1", "output", "log")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def chunks(first, end, *, attempt=1, size=1):
    return [Chunk(index, b"x" * size, attempt, NOON, "") for index in range(first, end)]


def news(first, end, *, closed="", restart_index=0, size=1):
    return Appended(NAME, first, chunks(first, end, size=size), End(closed) if closed else None, restart_index)


def indexes(items):
    return None if items is None else [item.index for item in items]


@pytest.fixture
def tail():
    return Tail(NAME)


# -- the tail


def test_it_gives_what_is_new_from_any_index_that_it_has(tail):
    assert tail.extend(news(5, 8))
    assert tail.extend(news(8, 10))
    assert [indexes(tail.after(index)) for index in (5, 9, 10, 12)] == [[5, 6, 7, 8, 9], [9], [], []]


def test_for_what_came_before_it_the_table_has_to_be_read(tail):
    tail.extend(news(5, 8))
    assert tail.after(4) is None


def test_what_comes_twice_is_taken_once(tail):
    tail.extend(news(0, 3))
    assert tail.extend(news(0, 3))
    assert tail.extend(news(1, 5))
    assert indexes(tail.after(0)) == [0, 1, 2, 3, 4]


def test_news_behind_a_gap_are_not_taken(tail):
    tail.extend(news(0, 3))
    assert not tail.extend(news(4, 6))
    assert (indexes(tail.after(0)), tail.is_behind) == ([0, 1, 2], True)
    tail.extend(news(3, 6))
    assert (indexes(tail.after(0)), tail.is_behind) == ([0, 1, 2, 3, 4, 5], False)


def test_a_tail_that_knows_nothing_leaves_what_was_heard_of_to_the_table(tail):
    assert tail.after(3) == []
    tail.heard(5)
    assert (tail.after(3), tail.after(5)) == (None, [])


def test_after_a_jump_only_the_newest_chunks_are_here(tail):
    tail.extend(news(0, 3))
    tail.jump(news(100, 103))
    assert (tail.after(0), tail.after(3), indexes(tail.after(101))) == (None, None, [101, 102])


@pytest.mark.parametrize(("size", "most"), [(1, tails._MOST_CHUNKS), (10_000, tails._MOST_BYTES // 10_000)])
def test_it_holds_so_many_chunks_and_bytes_and_drops_the_oldest(tail, size, most):
    for first in range(0, 20_000, 500):
        tail.extend(news(first, first + 500, size=size))
    assert indexes(tail.after(20_000 - most)) == list(range(20_000 - most, 20_000))
    assert tail.after(20_000 - most - 1) is None


def test_one_chunk_is_held_however_large_it_is(tail):
    tail.extend(news(0, 3, size=2 * tails._MOST_BYTES))
    assert (indexes(tail.after(2)), tail.after(1)) == ([2], None)


def test_chunks_behind_the_end_open_it_again(tail):
    """A new attempt goes on with what an earlier one has closed."""
    tail.extend(news(0, 3, closed="error"))
    assert tail.end_reason == "error"
    tail.extend(news(3, 4))
    assert tail.end_reason == ""


def test_old_news_that_come_late_leave_the_end_as_it_is(tail):
    """Of two commits in two threads, the second may be heard first; then it was read from the table."""
    tail.extend(news(0, 5))
    tail.extend(news(5, 6, closed="closed"))
    tail.extend(news(5, 6))
    assert tail.end_reason == "closed"


def test_news_in_any_order_and_doubled_never_give_a_wrong_chunk(tail):
    chance = random.Random(3)
    position = 0
    for step in range(2000):
        first = max(0, position + chance.randrange(-20, 20))
        one = news(first, first + chance.randrange(10))
        if not tail.extend(one) and step % 3 == 0:
            tail.jump(one)
        position = tail.next_index
        for index in range(max(0, position - 30), position + 5):
            found = tail.after(index)
            assert found is None or indexes(found) == list(range(index, max(position, index)))


# -- the cursor of a reader


def page(first, end, *, next_index=None, **more):
    return Page(chunks(first, end), end if next_index is None else next_index, **more)


def at(position):
    """A reader that has read the table up to there."""
    cursor = Cursor(NAME, position)
    cursor.take_page(page(position, position))
    return cursor


def test_a_reader_pages_until_it_has_all_that_was_stored_and_then_takes_the_tail(tail):
    cursor = Cursor(NAME, 2)
    assert (cursor.needs_page, cursor.wanted) == (True, 2)
    assert indexes(cursor.take_page(page(2, 4, next_index=6))) == [2, 3]
    assert (cursor.needs_page, cursor.wanted) == (True, 4)
    assert indexes(cursor.take_page(page(4, 6))) == [4, 5]
    assert not cursor.needs_page
    tail.extend(news(4, 9))
    assert indexes(cursor.take_tail(tail)) == [6, 7, 8]
    assert cursor.take_tail(tail) == []


def test_a_reader_that_fell_behind_asks_the_table_again(tail):
    cursor = at(3)
    tail.extend(news(5, 9))
    assert (cursor.take_tail(tail), cursor.needs_page, cursor.wanted) == ([], True, 3)


def test_from_the_latest_on_only_the_place_is_asked_for():
    cursor = Cursor(NAME, None)
    assert cursor.wanted is None
    assert cursor.take_page(Page(next_index=7)) == []
    assert (cursor.position, cursor.given, cursor.needs_page) == (7, 7, False)


def test_the_end_of_a_stream_is_the_end_only_when_all_chunks_were_taken():
    cursor = Cursor(NAME, 0)
    cursor.take_page(page(0, 2, next_index=4, end_reason="closed"))
    assert (cursor.is_over, cursor.end_reason) == (False, "")
    cursor.take_page(page(2, 4, end_reason="closed"))
    assert (cursor.is_over, cursor.end_reason) == (True, "closed")


def test_the_last_chunk_and_the_end_come_together_from_the_tail(tail):
    cursor = at(0)
    tail.extend(news(0, 2, closed="completed"))
    assert indexes(cursor.take_tail(tail)) == [0, 1]
    assert (cursor.is_over, cursor.end_reason) == (True, "completed")


def test_a_tail_that_ends_and_lacks_chunks_does_not_end_its_reader(tail):
    cursor = at(0)
    tail.extend(news(0, 2, closed="closed"))
    tail.heard(4)
    cursor.take_tail(tail)
    assert not cursor.is_over
    cursor.take_tail(tail)
    assert cursor.needs_page


def test_an_end_behind_a_gap_sends_the_reader_to_the_table(tail):
    cursor = at(1)
    tail.extend(news(0, 1))
    assert not tail.extend(news(3, 4, closed="closed"))
    tail.jump(news(3, 4, closed="closed"))
    assert (cursor.take_tail(tail), cursor.needs_page, cursor.is_over) == ([], True, False)


def test_what_was_removed_is_a_gap_and_says_where_it_ends():
    cursor = Cursor(NAME, 2)
    with pytest.raises(StreamGap) as caught:
        cursor.take_page(page(5, 6, first_index=5))
    assert "from 5 on" in str(caught.value)


@pytest.mark.parametrize("way", ["page", "tail"])
def test_a_restart_is_marked_once_and_what_is_before_it_left_out(tail, way):
    cursor = Cursor(NAME, 0)
    cursor.take_page(page(0, 2))
    if way == "page":
        cursor.needs_page = True
        cursor.take_page(page(2, 6, restart_index=4))  # before it is read again from there
        items = cursor.take_page(page(4, 6, restart_index=4))
    else:
        tail.extend(news(2, 6, restart_index=4))
        items = cursor.take_tail(tail)
    assert [(type(item), item.index) for item in items] == [(StreamRestarted, 4), (Chunk, 4), (Chunk, 5)]
    tail.extend(news(6, 7, restart_index=4))
    assert indexes(cursor.take_tail(tail)) == [6]


def test_a_reader_that_begins_behind_the_restart_sees_no_marker():
    cursor = Cursor(NAME, 5)
    assert [type(item) for item in cursor.take_page(page(5, 7, restart_index=4))] == [Chunk, Chunk]


@pytest.mark.parametrize(("size", "limit"), [(10, 1000), (4096, 256), (512 * 1024, 2), (4 * 1024 * 1024, 1)])
def test_pages_of_large_chunks_have_fewer_of_them(size, limit):
    cursor = Cursor(NAME, 0)
    assert cursor.limit <= 64
    cursor.take_page(Page(chunks(0, 2, size=size), 100))
    assert cursor.limit == limit
