"""A thread that makes the next items: the same items and errors, no more of them than asked for, and its end."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator

import pytest

from raycl.data.ahead import ahead


class Item:
    """Something whose end can be seen."""


class Source:
    """Numbers from 0 on, which tell how many were begun and whether the source was closed."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.count, self.closed = 0, False

    def numbers(self) -> Iterator[int]:
        try:
            while True:
                self.count += 1
                self.begun.release()
                yield self.count - 1
        finally:
            self.closed = True


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "raycl-ahead"]


@pytest.mark.parametrize("count", [1, 2, 50])
def test_the_items_are_those_of_the_iterator_in_its_order(count: int) -> None:
    assert list(ahead(iter(range(20)), count)) == [*range(20)]
    assert list(ahead(iter([]), count)) == []
    assert threads() == []


def test_as_many_as_asked_for_are_made_before_they_are_taken_and_no_more() -> None:
    source = Source()
    taken = ahead(source.numbers(), 3)
    for number in range(5):
        assert next(taken) == number
        while source.count < number + 4:
            assert source.begun.acquire(timeout=60)
        assert source.count == number + 4
    taken.close()


def test_an_error_is_raised_where_its_item_would_have_come() -> None:
    def broken() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("the third")

    taken = ahead(broken(), 5)
    assert [next(taken), next(taken)] == [1, 2]
    with pytest.raises(ValueError, match="the third"):
        next(taken)
    assert threads() == []


def test_when_it_is_closed_early_its_thread_has_ended_and_the_source_is_closed() -> None:
    source = Source()
    taken = ahead(source.numbers(), 2)
    assert next(taken) == 0
    assert threads() == ["raycl-ahead"]
    taken.close()
    assert (threads(), source.closed) == ([], True)


def test_an_item_that_was_handed_out_is_not_kept() -> None:
    taken = ahead((Item() for _ in range(3)), 1)
    item = next(taken)
    seen = weakref.ref(item)
    del item
    assert seen() is None
    taken.close()
