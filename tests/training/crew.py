"""Training by several processes that write down what they read, and that are killed or told to end at given steps."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import signal
import threading
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor

from raycl.data.reader import Batch
from raycl.storage.store import Store
from raycl.training import exchange, loop, step
from raycl.training.stop import Stopped
from tests.training.builders import job, weights_of

CPU = torch.device("cpu")
ENDED, STOPPED = 0, 3
EPOCHS, STEPS, BATCH = 2, 10, 8
"""Of a run: epochs, steps an epoch, pairs a step."""

_START = multiprocessing.get_context("forkserver")
_START.set_forkserver_preload([__name__])
_attempts = itertools.count()


class End(NamedTuple):
    """What happens to which process just before it takes which step."""

    rank: int
    step: int
    how: str
    """``kill`` for SIGKILL, ``stop`` for a wish to end."""


@dataclass(frozen=True)
class Taken:
    """A step that was taken: its loss, and the pairs that all processes read for it, by their weights."""

    loss: float
    pairs: tuple[float, ...]


def train(folder: Path, world: int, *ends: End, **settings: Any) -> set[int | None]:
    """One attempt of a run whose files are in ``folder``: the exit codes of its processes."""
    folder.mkdir(exist_ok=True)
    attempt = f"{next(_attempts):03d}"
    crew = [
        _START.Process(target=_work, args=(rank, str(folder), world, attempt, ends, settings)) for rank in range(world)
    ]
    for one in crew:
        one.start()
    for one in crew:
        one.join(120)
        assert one.exitcode is not None
    return {one.exitcode for one in crew}


def last_taken(folder: Path) -> dict[int, Taken]:
    """By number, each step as it was taken last; its pairs in the order of the ranks."""
    attempts: dict[int, str] = {}
    parts: dict[tuple[int, str], list[tuple[int, float, list[float]]]] = defaultdict(list)
    for path in sorted(folder.glob("taken-*")):
        _, attempt, rank = path.name.split("-")
        for number, loss, pairs in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            attempts[number] = max(attempts.get(number, ""), attempt)
            parts[number, attempt].append((int(rank), loss, pairs))
    found = {}
    for number, attempt in sorted(attempts.items()):
        _, losses, pairs = zip(*sorted(parts[number, attempt]), strict=True)
        found[number] = Taken(sum(losses) / len(losses), tuple(itertools.chain(*pairs)))
    return found


def weights(folder: Path) -> dict[str, Tensor]:
    """The towers at the end of a run, by its rank 0."""
    return load_file(folder / "weights.safetensors")


def losses(folder: Path) -> list[float]:
    """The mean loss of each epoch."""
    return [float(loss) for loss in json.loads((folder / "losses.json").read_text(encoding="utf-8"))]


def every_pair(folder: Path) -> set[float]:
    """All training pairs of the run."""
    stream = job(folder, train={"global_batch_size": 1}).stream
    return {float(batch.weight[0]) for batch in stream.epoch(0)}


def _work(rank: int, folder: str, world: int, attempt: str, ends: tuple[End, ...], settings: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    setattr(os, "fsync", lambda _: None)  # noqa: B010  # no run of these outlives a power cut
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous-{attempt}", rank=rank, world_size=world)
    asked = threading.Event()
    run = job(
        Path(folder), train={"epochs": EPOCHS, "global_batch_size": BATCH} | settings.pop("train", {}), **settings
    )
    _write_down(Path(folder) / f"taken-{attempt}-{rank}", [end for end in ends if end.rank == rank], asked)
    try:
        towers, progress = loop.fit(run, CPU, lambda _: None, asked)
    except Stopped:
        raise SystemExit(STOPPED) from None
    if rank == 0:
        save_file(weights_of(towers), Path(folder) / "weights.safetensors")
        Store(folder).write("losses.json", json.dumps(progress.losses).encode())


def _write_down(path: Path, ends: list[End], asked: threading.Event) -> None:
    """Let every step of this process leave a line in ``path``, and end it where it should end."""
    take, notes = step.take, path.open("w", encoding="utf-8")

    def taken(one: step.Learner, batch: Batch, number: int, rate: float) -> Tensor:
        for end in ends:
            if end.step == number:
                os.kill(os.getpid(), signal.SIGKILL) if end.how == "kill" else asked.set()
        value = take(one, batch, number, rate)
        notes.write(json.dumps([number, float(value), batch.weight.tolist()]) + "\n")
        notes.flush()
        assert len(batch) == BATCH // exchange.world_size()
        return value

    step.take = taken
