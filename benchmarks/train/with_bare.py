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
from raycl.training import draws, loop
from raycl.training.job import Job
from raycl.training.schedule import learning_rate


def main() -> None:
    """Train, and print pairs/s of each epoch, the mean losses and the first loss."""
    chosen, config = case.arguments()
    job = case.job(config)
    one = bare.Loop(_towers(job, sparse=sys.argv[5] == "sparse"), job.loss.temperature, job.train.gradient_clip)
    rates, losses, number = [], [], 0
    steps = job.stream.steps
    for epoch in range(case.EPOCHS):
        batches = [_tensors(job, batch, epoch * steps + place) for place, batch in enumerate(job.stream.epoch(epoch))]
        found = []
        began = time.perf_counter()
        for batch in batches:
            found.append(one.step(batch, learning_rate(job.train, number, steps * case.EPOCHS)))
            number += 1
        rates.append(steps * chosen.batch / (time.perf_counter() - began))
        losses.append([float(loss) for loss in found])
    means = [float(np.mean(epoch)) for epoch in losses]
    sys.stdout.write(json.dumps({"pairs_per_s": rates, "losses": means, "first": losses[0][0]}) + "\n")


def _towers(job: Job, *, sparse: bool) -> bare.Towers:
    """With the weights that raycl starts from."""
    built = loop.build(job)
    towers = bare.Towers(job.spec.num_items + 1, case.DIM, case.HIDDEN, sparse=sparse)
    assert built.item.ids is not None
    assert built.user.history is not None
    with torch.no_grad():
        towers.ids.weight.copy_(built.item.ids.weight)
        towers.history.weight.copy_(built.user.history.weight)
        towers.empty.copy_(built.user.empty)
        for head, theirs in ((towers.user, built.user.head), (towers.item, built.item.head)):
            layers = [layer for layer in theirs.layers[0].modules() if isinstance(layer, torch.nn.Linear)]
            for layer, of_raycl in zip((head.first, head.second), layers, strict=True):
                layer.load_state_dict(of_raycl.state_dict())
    return towers


def _tensors(job: Job, batch: Batch, number: int) -> bare.Batch:
    known, seen = job.inputs.train_counts > 0, job.inputs.train_targets > 0
    uniform = draws.uniform(job.seed, number, job.loss.negatives.uniform, job.num_active)
    items = np.concatenate([batch.item.astype(np.int64), uniform])
    hidden = torch.from_numpy(draws.hidden(items, number, job.spec.model.id_dropout))
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
