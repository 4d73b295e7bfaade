"""What a full collection goes through once the modules are spared."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from raycl.serving import collector


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    threshold = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*threshold)


def test_modules_are_gone_through_no_more_and_what_comes_later_is_collected() -> None:
    collector.spare_modules()
    assert gc.get_freeze_count() > 10_000
    assert not any(one is gc.__dict__ or one is pytest.__dict__ for one in gc.get_objects())

    class Ring:
        pass

    ring = Ring()
    ring.itself = ring  # type: ignore[attr-defined]
    del ring
    assert gc.collect() > 0


def test_what_a_batch_makes_begins_no_collection() -> None:
    collector.spare_modules()
    before = gc.get_stats()[0]["collections"]
    answers = [{"items": [{"item": item} for item in range(10)]} for _ in range(1_000)]
    assert len(answers) == 1_000
    assert gc.get_stats()[0]["collections"] == before
