"""What both contenders train: the config of a case, and its run as raycl prepares it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from raycl import config_file, journey
from raycl.config import Config
from raycl.data.handoff import Pairs
from raycl.storage.store import Store
from raycl.training.job import Job
from raycl.training.prepare import prepare

EPOCHS, DIM, HIDDEN = 2, 64, 128


@dataclass(frozen=True)
class Case:
    """One size. The log has the same rows whatever the number of items."""

    items: int = 100_000
    batch: int = 2_048
    uniform: int = 0
    """Negatives drawn evenly, beside those of the batch."""
    workers: int = 1

    def to_json(self) -> str:
        """As a word of a command."""
        return json.dumps(asdict(self))


def config(case: Case, log: Path, workspace: Path, cores: int) -> Config:
    """The training that both do, on ``cores`` cores in all."""
    return config_file.check(
        {
            "workspace": str(workspace),
            "logs": [{"uri": f"{log}/events", "columns": {"event": "event_type"}}],
            "event_weights": {"view": 1.0, "cart": 2.0, "purchase": 3.0},
            "items": {"uri": f"{log}/items"},
            "model": {"dim": DIM, "hidden": [HIDDEN]},
            "loss": {"negatives": {"uniform": case.uniform}},
            "train": {
                "epochs": EPOCHS,
                "global_batch_size": case.batch,
                "weight_decay": 0.0,
                "num_workers": case.workers,
                "threads_per_worker": cores // case.workers,
            },
            "ray": {"num_cpus": cores},
        }
    )


def job(chosen: Config) -> Job:
    """The run on the pairs, which are made where they are not there."""
    return prepare(chosen, Pairs.of(journey.pairs(chosen).version), Store(chosen.workspace))


def arguments() -> tuple[Case, Config]:
    """Of a contender's command: CASE LOG WORKSPACE CORES."""
    case = Case(**json.loads(sys.argv[1]))
    cores = int(sys.argv[4])
    torch.set_num_threads(cores)
    return case, config(case, Path(sys.argv[2]), Path(sys.argv[3]), cores)
