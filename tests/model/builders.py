"""Small towers and inputs for them."""

from __future__ import annotations

from typing import Any

import torch

from raycl.config import ModelConfig
from raycl.data.features import PADDING
from raycl.model.inputs import FeatureRows
from raycl.model.spec import FeatureSizes, TowerSpec
from raycl.model.towers import TwoTower

NUM_ITEMS = 6
POOLINGS = ("mean", "recency", "attention", "transformer")
NO_FEATURES = FeatureSizes((), 0)
SOME_FEATURES = FeatureSizes((5, 3), 2, (3,))


def tower_spec(
    items: FeatureSizes = NO_FEATURES,
    users: FeatureSizes = NO_FEATURES,
    max_history: int = 4,
    shared_id_rows: int | None = None,
    context: FeatureSizes = NO_FEATURES,
    **model: Any,
) -> TowerSpec:
    chosen = ModelConfig.model_validate({"dim": 8, "hidden": (12,)} | model)
    return TowerSpec(NUM_ITEMS, max_history, items, users, chosen, shared_id_rows, context)


def towers(spec: TowerSpec, known: tuple[int, ...] = (0, 1, 2, 3), seed: int = 0) -> TwoTower:
    """Untrained towers that know these items, ready to answer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = TwoTower(spec)
        for parameter in built.parameters():  # biases and gains start at 0, where a fault in their use would not show
            torch.nn.init.normal_(parameter, std=0.3)
        tables = [*built.user.features.bags, *built.user.context.bags, *built.item.features.bags]
        for table in tables if built.user.history is None else [*tables, built.user.history]:
            with torch.no_grad():
                table.weight[PADDING] = 0
    for tower in (built.user, built.item):
        tower.known[list(known)] = True
    return built.eval()


def no_features(rows: int) -> FeatureRows:
    return FeatureRows((), torch.zeros(rows, 0))


def some_features(rows: int, seed: int = 0) -> FeatureRows:
    """Tokens, numbers and vectors that fit ``SOME_FEATURES``; padding and unknowns are among them."""
    generator = torch.Generator().manual_seed(seed)
    tokens = tuple(torch.randint(0, size, (rows, 3), generator=generator) for size in SOME_FEATURES.bag_tokens)
    numbers, vectors = (torch.randn(rows, size, generator=generator) for size in (2, 3))
    numbers[rows - 1, 0] = torch.nan
    vectors[rows // 2] = torch.nan
    return FeatureRows(tokens, numbers, (vectors,))
