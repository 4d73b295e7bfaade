"""What the processes of the distributed tests run; spawned, so it stands in a module of its own."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor
from torch.multiprocessing.spawn import spawn as spawn_processes
from torch.nn.parallel import DistributedDataParallel

from raycl.training import exchange, loop
from tests.training.builders import job, weights_of

CPU = torch.device("cpu")
CASES = (("static", 0.0), ("static", 0.5), ("off", 0.5))
"""``loss.log_q`` and ``model.id_dropout``."""
STEPS = 2
MODEL = {"id_dropout": 0.3}


def gradients(folder: Path, log_q: str, id_dropout: float) -> dict[str, Tensor]:
    """The loss and the gradients of each of some steps, by this process's part of each batch.

    The gradients are clipped by a norm that none reaches, and no step moves the weights.
    """
    run = job(folder, train={"gradient_clip": 1e9}, loss={"log_q": log_q}, model={"id_dropout": id_dropout})
    towers = loop.build(run)
    optimizer = torch.optim.SGD(towers.parameters(), lr=0.0)
    model = DistributedDataParallel(towers) if exchange.world_size() > 1 else towers
    found: dict[str, Tensor] = {}
    batches = run.stream.epoch(0, exchange.rank(), exchange.world_size())
    for number, batch in zip(range(STEPS), batches, strict=False):
        value = loop.step(run, run.inputs, model, optimizer, batch, number, 0.0, CPU)
        found[f"{number} loss"] = exchange.mean(value)
        for name, parameter in towers.named_parameters():
            assert parameter.grad is not None, name
            found[f"{number} {name}"] = parameter.grad.clone()
    return found


def fitted(folder: Path) -> dict[str, Tensor]:
    """The weights and the losses of a whole run."""
    towers, progress = loop.fit(job(folder, model=MODEL), CPU, lambda _: None)
    return weights_of(towers) | {"losses": torch.tensor(progress.losses, dtype=torch.float64)}


def work(rank: int, folder: str, world: int) -> None:
    """One process: join the others, work, and leave what was found for the test to compare."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    try:
        mine = Path(folder) / f"rank-{rank}"
        for number, case in enumerate(CASES):
            save_file(gradients(mine, *case), Path(folder) / f"gradients-{number}-{rank}.safetensors")
        save_file(fitted(Path(folder) / "shared"), Path(folder) / f"fitted-{rank}.safetensors")
    finally:
        dist.destroy_process_group()


def spawn(folder: Path, world: int) -> None:
    """Run ``work`` in ``world`` new processes."""
    spawn_processes(work, args=(str(folder), world), nprocs=world)  # type: ignore[no-untyped-call]
