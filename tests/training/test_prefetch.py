"""Batches made ahead: those of the stream, before they are asked for, with the stream's errors and a clean end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from raycl.data.reader import Batch, PairStream
from raycl.training import prefetch
from tests.training.builders import job


class Watched(PairStream):
    """A stream that tells how many batches it made, and fails before the given one."""

    def __init__(self, stream: PairStream, fails_at: int | None = None) -> None:
        super().__init__(**vars(stream))
        object.__setattr__(self, "made", threading.Semaphore(0))
        object.__setattr__(self, "fails_at", fails_at)

    def epoch(self, epoch: int, rank: int = 0, world_size: int = 1, first_step: int = 0) -> Iterator[Batch]:
        for number, batch in enumerate(super().epoch(epoch, rank, world_size, first_step), first_step):
            if number == self.__dict__["fails_at"]:
                raise OSError("the disk is gone")
            self.__dict__["made"].release()
            yield batch


def test_batches_are_those_of_the_stream_and_the_next_ones_are_made_before_they_are_asked_for(tmp_path: Path) -> None:
    plain = job(tmp_path)
    watched = Watched(plain.stream)
    expected = list(plain.stream.epoch(1, first_step=1))
    with prefetch.batches(replace(plain, stream=watched), 1, 1) as batches:
        found = [next(batches)]
        for _ in range(3):
            assert watched.__dict__["made"].acquire(timeout=60)
        found += batches
    assert len(found) == len(expected) == 4
    for one, other in zip(found, expected, strict=True):
        assert all(np.array_equal(one.arrays[name], other.arrays[name]) for name in other.arrays)


def test_an_error_of_the_stream_is_raised_in_the_loop_after_the_batches_before_it(tmp_path: Path) -> None:
    plain = job(tmp_path)
    with prefetch.batches(replace(plain, stream=Watched(plain.stream, 2)), 0, 0) as batches:
        assert [len(next(batches)), len(next(batches))] == [16, 16]
        with pytest.raises(OSError, match="the disk is gone"):
            next(batches)


def test_a_loop_that_ends_early_leaves_no_thread(tmp_path: Path) -> None:
    def interrupted() -> None:
        with prefetch.batches(job(tmp_path), 0, 0) as batches:
            next(batches)
            raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert threading.active_count() == before


def test_an_array_that_is_sent_keeps_its_values_and_type() -> None:
    for array in (np.arange(6, dtype=np.int32).reshape(2, 3), np.array([True, False]), np.empty((0, 4), np.float32)):
        found = prefetch.sent(array, torch.device("cpu"))
        assert (found.numpy().dtype, found.tolist()) == (array.dtype, array.tolist())


@pytest.mark.requires_gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_an_array_arrives_on_the_gpu_though_its_memory_is_used_again() -> None:
    device = torch.device("cuda")
    arrays = [np.full((1_000, 50), number, dtype=np.int64) for number in range(200)]
    found = [prefetch.sent(array.copy(), device) for array in arrays]
    assert [torch.equal(one.cpu(), torch.from_numpy(array)) for one, array in zip(found, arrays, strict=True)] == (
        [True] * 200
    )
