"""Requests that came while others were answered: who waits for whom, and what each gets."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest

from raycl.serving.batches import Batches

Seen = list[tuple[list[int], bool]]
"""Of each batch the requests, and whether the event loop itself answered it."""


def batches(seen: Seen, most: int = 8, light: bool = True, **how: float) -> Batches[int, int]:
    """Answers a number with its square, and notes how."""
    main = threading.get_ident()

    def answer(asked: Sequence[int]) -> list[int]:
        seen.append((list(asked), threading.get_ident() == main))
        return [number * number for number in asked]

    return Batches(answer, most, light=lambda number: int(light), **how)


def ask(given: Batches[int, int], numbers: Sequence[int]) -> list[int]:
    async def together() -> list[int]:
        return list(await asyncio.gather(*(given(number) for number in numbers)))

    return asyncio.run(together())


def test_requests_at_once_are_one_batch_and_each_has_its_own_answer() -> None:
    seen: Seen = []
    assert ask(batches(seen), range(6)) == [0, 1, 4, 9, 16, 25]
    assert [numbers for numbers, _ in seen] == [[0, 1, 2, 3, 4, 5]]


def test_requests_that_come_while_others_are_read_are_of_their_batch() -> None:
    seen: Seen = []

    async def one_after_the_other() -> None:
        given, futures = batches(seen), []
        for number in range(5):
            futures.append(given(number))
            await asyncio.sleep(0)
        await asyncio.gather(*futures)

    asyncio.run(one_after_the_other())
    assert [numbers for numbers, _ in seen] == [[0, 1, 2, 3, 4]]


def test_requests_that_never_cease_do_not_keep_a_batch_waiting() -> None:
    seen: Seen = []

    async def one_after_the_other() -> None:
        given = batches(seen, most=4)
        first, rest = given(0), list[asyncio.Future[int]]()
        while not first.done():
            rest.append(given(len(rest) + 1))
            await asyncio.sleep(0)
        await asyncio.gather(*rest)

    asyncio.run(one_after_the_other())
    assert seen[0][0] == [0, 1, 2, 3]


def test_no_batch_is_above_the_most() -> None:
    seen: Seen = []
    assert ask(batches(seen, most=4), range(10)) == [number * number for number in range(10)]
    assert [len(numbers) for numbers, _ in seen] == [4, 4, 2]


def test_the_first_batch_is_timed_in_a_thread_and_light_ones_are_answered_by_the_loop_from_then_on() -> None:
    seen: Seen = []

    async def in_turn(given: Batches[int, int]) -> None:
        for number in range(3):
            await given(number)

    asyncio.run(in_turn(batches(seen)))
    assert [here for _, here in seen] == [False, True, True]
    seen.clear()
    asyncio.run(in_turn(batches(seen, light=False)))
    assert [here for _, here in seen] == [False, False, False]


def test_light_requests_that_take_long_together_do_not_hold_the_loop() -> None:
    main, seen = threading.get_ident(), []

    def slow(asked: Sequence[int]) -> list[int]:
        seen.append(threading.get_ident() == main)
        time.sleep(0.03)
        return list(asked)

    async def in_turn() -> None:
        given = Batches(slow, 8, light=lambda number: 1)
        for number in range(3):
            await given(number)

    asyncio.run(in_turn())
    assert seen == [False, False, False]


def test_light_requests_do_not_wait_for_hard_ones() -> None:
    go = threading.Event()

    def answer(asked: Sequence[int]) -> list[int]:
        if -1 in asked:
            go.wait(10.0)
        return list(asked)

    async def both() -> None:
        given = Batches(answer, 8, light=lambda number: int(number >= 0))
        hard = given(-1)
        assert [await given(number) for number in range(3)] == [0, 1, 2]
        assert not hard.done()
        go.set()
        assert await hard == -1

    asyncio.run(both())


def test_an_error_of_a_batch_reaches_all_who_were_in_it_and_nobody_else() -> None:
    def answer(asked: Sequence[int]) -> list[int]:
        if 0 in asked:
            raise ValueError("nought")
        return list(asked)

    async def two() -> None:
        given = Batches(answer, 2, light=lambda number: 1)
        found = await asyncio.gather(*(given(number) for number in range(4)), return_exceptions=True)
        assert [str(one) for one in found[:2]] == ["nought", "nought"]
        assert found[2:] == [2, 3]

    asyncio.run(two())


def test_who_gave_up_waiting_is_not_answered() -> None:
    seen: Seen = []

    async def leave() -> None:
        given = batches(seen)
        first, second = given(1), given(2)
        first.cancel()
        assert await second == 4

    asyncio.run(leave())
    assert [numbers for numbers, _ in seen] == [[2]]


@pytest.mark.parametrize(("wait_s", "expected"), [(0.0, 2), (0.2, 1)])
def test_the_first_of_a_batch_waits_for_others_where_it_is_told_to(wait_s: float, expected: int) -> None:
    seen: Seen = []

    async def late() -> None:
        given = batches(seen, wait_s=wait_s)
        first = given(1)
        await asyncio.sleep(0.02)
        await asyncio.gather(first, given(2))

    asyncio.run(late())
    assert len(seen) == expected
