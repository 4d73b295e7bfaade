"""Small training runs, made from nothing but a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from raycl.config import ModelConfig, PairRules, TrainConfig
from raycl.config_loss import LossConfig
from raycl.data.features import Encoder, Encoders
from raycl.data.reader import PairStream
from raycl.model.inputs import FeatureRows
from raycl.model.spec import FeatureSizes, TowerSpec
from raycl.storage import tables
from raycl.storage.store import Store
from raycl.training.job import Inputs, Job
from tests.data.builders import part_table
from tests.data.reference import Packed

NUM_ITEMS, NUM_USERS, MAX_HISTORY = 20, 12, 4
FIRST_ONLY = NUM_ITEMS - 2
SPLIT = {"kind": "leave_last_out"}
DEVICES = ("phone", "desk", None)
POOLS = (np.arange(NUM_ITEMS)[:, None] + 3 * np.arange(5) + 1).astype(np.int32) % NUM_ITEMS
"""Mined negatives: item 0 has none and item 1 two."""
POOLS[0], POOLS[1, 2:] = -1, -1
REQUESTS = Encoders(
    (
        Encoder("hour", "numeric", "", 0, mean=3.0, deviation=2.0),
        Encoder("device", "categorical", "", 0, ("phone", "desk")),
    )
)


def job(
    folder: Path,
    *,
    train: dict[str, Any] | None = None,
    model: dict[str, Any] | None = None,
    loss: dict[str, Any] | None = None,
    seed: int = 1,
    with_context: bool = False,
) -> Job:
    """A run over 84 pairs in 3 files, 5 steps an epoch, with checkpoints under ``folder``; always the same pairs.

    Items and users have features, some items are repeated in a batch, one item is unknown to training, and one is only
    ever a user's first event. The 12 users are held out with three more events each, for ``train`` to validate on where
    it has ``validation``. ``with_context`` the towers read the number of the hour and the device that go with it. Users
    turn items down, some of which they meet.
    """
    store = Store(str(folder / "pairs"))
    generator = np.random.default_rng(4)
    item = torch.Generator().manual_seed(4)
    files, held_out, counts, targets = [], [], np.zeros(NUM_ITEMS, dtype=np.int64), np.zeros(NUM_ITEMS, dtype=np.int64)
    for number in range(3):
        sizes = [8] * 4
        items = [generator.integers(0, NUM_ITEMS - 2, size) ** 2 // (NUM_ITEMS - 2) for size in sizes]
        items[0][0] = FIRST_ONLY
        counts += np.bincount(np.concatenate(items), minlength=NUM_ITEMS)
        targets += np.bincount(np.concatenate([one[1:] for one in items]), minlength=NUM_ITEMS)
        _write(store, f"sequences/part-{number:06d}.parquet", items, generator, first_user=4 * number)
        files.append((f"sequences/part-{number:06d}.parquet", sum(sizes) - len(sizes)))
        later = [np.append(one, (one[-3:] + number + 1) % NUM_ITEMS) for one in items]
        held_out.append((f"held_out/part-{number:06d}.parquet", 3 * len(later)))
        _write(store, held_out[-1][0], later, np.random.default_rng(5), 4 * number, num_targets=3)
    rules = PairRules.model_validate(
        {"max_history": MAX_HISTORY, "split": SPLIT, "negative_events": ["skip"], "max_negatives": 3}
    )
    settings = TrainConfig.model_validate(
        {"epochs": 2, "global_batch_size": 16, "learning_rate": 0.02, "checkpoint_steps": 2, "use_gpu": "never"}
        | {"validation": {"users": 0}}
        | (train or {})
    )
    sizes_of, requests = FeatureSizes((6,), 1), REQUESTS if with_context else Encoders()
    chosen = ModelConfig.model_validate({"dim": 8, "hidden": (8,)} | (model or {}))
    losses = LossConfig.model_validate(loss or {})
    stream = PairStream(
        store,
        tuple(files),
        rules,
        settings.global_batch_size,
        40,
        seed,
        with_ages=chosen.reads_times,
        with_negatives=bool(losses.negatives.explicit),
        context=tuple(feature.column for feature in requests.features),
        encoders=requests,
    )
    return Job(
        TowerSpec(
            NUM_ITEMS,
            MAX_HISTORY,
            sizes_of,
            sizes_of,
            chosen,
            context=FeatureSizes.of(requests),
        ),
        settings,
        losses,
        stream,
        Inputs(
            _features(NUM_ITEMS, item),
            _features(NUM_USERS - 1, item),
            torch.from_numpy(counts),
            torch.from_numpy(targets),
            neighbours=np.arange(1, NUM_ITEMS + 1, dtype=np.int32) % NUM_ITEMS,
            mined=POOLS if losses.negatives.mined is not None else None,
        ),
        Store(str(folder / "towers")),
        seed,
        tuple(held_out),
    )


def _write(
    store: Store,
    path: str,
    items: list[Any],
    generator: np.random.Generator,
    first_user: int,
    num_targets: int | None = None,
) -> None:
    rows = [
        Packed(
            user,
            user if user < NUM_USERS - 2 else -1,
            len(one) - num_targets if num_targets else 0,
            tuple(one),
            tuple(generator.uniform(0.5, 2.0, len(one))),
            tuple((1000 * 2**place * (user + 1)) for place in range(len(one))),
            tuple((float(place), DEVICES[(user + place) % 3]) for place in range(len(one))),
            tuple(
                (
                    int(one[(3 * user + place) % len(one)]) if place % 2 else (user + place) % NUM_ITEMS,
                    1000 * 2**place * (user + 1) - 1,
                    1,
                )
                for place in range(user % 4, 7)
            ),
        )
        for user, one in enumerate(items, start=first_user)
    ]
    part = "val" if num_targets else "train"
    context = {"hour": pa.float64(), "device": pa.large_string()}
    tables.write(store, path, part_table(rows, part, negatives=True, context=context))


def _features(rows: int, generator: torch.Generator) -> FeatureRows:
    return FeatureRows(
        (torch.randint(0, 6, (rows, 2), generator=generator),), torch.randn(rows, 1, generator=generator)
    )


def weights_of(module: torch.nn.Module) -> dict[str, Tensor]:
    """A copy of parameters and buffers."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def assert_equal_bits(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """The same names with tensors that are equal in every bit."""
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], within: float) -> None:
    """The same names with tensors that differ by less than ``within`` anywhere."""
    assert found.keys() == expected.keys()
    far = {name: float((found[name].double() - expected[name].double()).abs().max()) for name in found}
    assert {name: distance for name, distance in far.items() if not distance < within} == {}
