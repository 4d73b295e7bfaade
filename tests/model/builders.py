"""Small towers and inputs for them."""

from __future__ import annotations

from typing import Any

import torch

from raycl.config import ModelConfig
from raycl.model.inputs import FeatureRows
from raycl.model.spec import FeatureSizes, TowerSpec
from raycl.model.towers import TwoTower

NUM_ITEMS = 6
NO_FEATURES = FeatureSizes((), 0)
SOME_FEATURES = FeatureSizes((5, 3), 2)


def tower_spec(
    items: FeatureSizes = NO_FEATURES, users: FeatureSizes = NO_FEATURES, max_history: int = 4, **model: Any
) -> TowerSpec:
    return TowerSpec(
        NUM_ITEMS, max_history, items, users, ModelConfig.model_validate({"dim": 8, "hidden": (12,)} | model)
    )


def towers(spec: TowerSpec, known: tuple[int, ...] = (0, 1, 2, 3), seed: int = 0) -> TwoTower:
    """Untrained towers that know these items, ready to answer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = TwoTower(spec)
        for parameter in built.parameters():  # biases and gains start at 0, where a fault in their use would not show
            torch.nn.init.normal_(parameter, std=0.3)
        for bag in (*built.user.features.bags, *built.item.features.bags, built.user.history):
            with torch.no_grad():
                bag.weight[0] = 0
    for tower in (built.user, built.item):
        tower.known[list(known)] = True
    return built.eval()


def no_features(rows: int) -> FeatureRows:
    return FeatureRows((), torch.zeros(rows, 0))


def some_features(rows: int, seed: int = 0) -> FeatureRows:
    """Tokens and numbers that fit ``SOME_FEATURES``; token 0 among them."""
    generator = torch.Generator().manual_seed(seed)
    tokens = tuple(torch.randint(0, size, (rows, 3), generator=generator) for size in SOME_FEATURES.bag_tokens)
    return FeatureRows(tokens, torch.randn(rows, 2, generator=generator))
