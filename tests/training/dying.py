"""A process that ends within an epoch, for tests of what goes on afterwards."""

from __future__ import annotations

from collections.abc import Iterator

from raycl.data.reader import Batch, PairStream


class Killed(Exception):
    """Stands for the end of the process."""


class Dying(PairStream):
    """A stream that ends the process before the given step of the given epoch."""

    def __init__(self, stream: PairStream, epoch: int, step: int) -> None:
        super().__init__(**vars(stream))
        object.__setattr__(self, "death", (epoch, step))

    def epoch(self, epoch: int, rank: int = 0, world_size: int = 1, first_step: int = 0) -> Iterator[Batch]:
        for number, batch in enumerate(super().epoch(epoch, rank, world_size, first_step), first_step):
            if (epoch, number) == self.__dict__["death"]:
                raise Killed
            yield batch
