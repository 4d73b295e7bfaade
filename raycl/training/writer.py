"""Checkpoints written while training goes on."""

from __future__ import annotations

import copy
import logging
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from torch import nn

from raycl.storage.store import Store
from raycl.training import checkpoint
from raycl.training.checkpoint import Optimizers, Progress

log = logging.getLogger(__name__)


class Writer:
    """Takes snapshots where it is called, and serialises, sums and writes them in a thread, one at a time.

    A failure to write is raised by the next call. As a context it awaits the last one at the end; where another error
    ends the context, a failure is logged beside it.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._thread = ThreadPoolExecutor(1, "raycl-checkpoint")
        self._under_way: Future[dict[str, str] | None] | None = None
        self._step: int | None = None
        self._sums: dict[str, str] | None = None

    def save(self, model: nn.Module, optimizers: Optimizers, progress: Progress) -> None:
        """Take a checkpoint of this moment, once the one before is written; it is complete some time later.

        Every process calls it, and the first one writes. Called again at the same step, as before and after a
        validation, it writes the progress alone, for nothing else has changed.
        """
        self.wait()
        if progress.step == self._step:
            if self._sums is not None:
                told = copy.deepcopy(progress)
                self._under_way = self._thread.submit(checkpoint.write_progress, self._store, told, self._sums)
            return
        taken = checkpoint.snapshot(model, optimizers, progress)
        self._step = progress.step
        if taken is not None:
            self._under_way = self._thread.submit(checkpoint.write, self._store, taken)

    def wait(self) -> None:
        """Return once every checkpoint is complete; raise what one failed with."""
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            self._sums = under_way.result() or self._sums

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            self.wait()
        except Exception as failure:
            if error is None:
                raise
            log.warning("the last checkpoint under %s was not written: %s", self._store.uri, failure)
        finally:
            self._thread.shutdown(wait=False)
