"""The bare loop as a program: CASE LOG WORKSPACE CORES sparse|dense. Its tensors are made before the clock starts."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import torch

from benchmarks.train import bare, case
from raycl.data.reader import Batch
from raycl.model import log_q
from raycl.model.towers import TwoTower
from raycl.training import draws, loop
from raycl.training.job import Job
from raycl.training.schedule import learning_rate


def main() -> None:
    """Train, and print pairs/s and the mean loss of each epoch."""
    chosen, config = case.arguments()
    job = case.job(config)
    one = bare.Loop(
        towers_of(loop.build(job), sparse=sys.argv[5] == "sparse"), job.loss.temperature, job.train.gradient_clip
    )
    rates, losses, number = [], [], 0
    steps = job.stream.steps
    for epoch in range(case.EPOCHS):
        batches = [tensors_of(job, batch, epoch * steps + place) for place, batch in enumerate(job.stream.epoch(epoch))]
        found = []
        began = time.perf_counter()
        for batch in batches:
            found.append(one.step(batch, learning_rate(job.train, number, steps * case.EPOCHS)))
            number += 1
        rates.append(steps * chosen.batch / (time.perf_counter() - began))
        losses.append(float(torch.stack(found).double().mean()))
    sys.stdout.write(json.dumps({"pairs_per_s": rates, "losses": losses}) + "\n")


def towers_of(built: TwoTower, *, sparse: bool) -> bare.Towers:
    """Bare towers with the very weights of raycl's."""
    assert built.item.ids is not None
    assert built.user.history is not None
    with torch.device("meta"):
        towers = bare.Towers(len(built.item.ids.weight), case.DIM, case.HIDDEN, sparse=sparse)
    weights: dict[str, torch.Tensor] = {
        "ids.weight": built.item.ids.weight,
        "history.weight": built.user.history.weight,
        "empty": built.user.empty,
    }
    for name, head in (("user", built.user.head), ("item", built.item.head)):
        layers = [layer for layer in head.layers[0].modules() if isinstance(layer, torch.nn.Linear)]
        for place, layer in zip(("first", "second"), layers, strict=True):
            weights |= {f"{name}.{place}.weight": layer.weight, f"{name}.{place}.bias": layer.bias}
    towers.load_state_dict(weights, assign=True)
    return towers


def tensors_of(job: Job, batch: Batch, number: int) -> bare.Batch:
    """The tensors of a step."""
    known, seen = job.inputs.train_counts > 0, job.inputs.train_targets > 0
    uniform = draws.uniform(job.seed, number, job.loss.negatives.uniform, job.num_active)
    items = np.concatenate([batch.item.astype(np.int64), uniform])
    hidden = torch.from_numpy(draws.hidden(job.seed, number, items, job.spec.model.id_dropout))
    history, targets = torch.from_numpy(batch.history.astype(np.int64)), torch.from_numpy(items)
    present = (history >= 0) & known[history.clamp(min=0)]
    return bare.Batch(
        torch.where(present, history + 1, 0),
        present.float() / present.sum(1, keepdim=True).clamp(min=1),
        torch.where(seen[targets] & ~hidden, targets + 1, 0),
        targets,
        log_q.mixture(job.inputs.log_q[targets], len(batch), len(uniform), job.num_active),
        torch.from_numpy(batch.weight),
    )


if __name__ == "__main__":
    main()
