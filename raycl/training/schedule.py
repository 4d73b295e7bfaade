"""The learning rate as a function of the step and of the validations so far, so of nothing that is not saved."""

from __future__ import annotations

import math

from raycl.config import TrainConfig
from raycl.config_validation import Plateau
from raycl.training.curve import Curve, num_plateaus

_LEAST = 0.01
"""Share of the peak that no schedule goes below."""


def learning_rate(train: TrainConfig, step: int, num_steps: int, curve: Curve = ()) -> float:
    """The rate of ``step`` of ``num_steps``, after the validations of the ``curve``.

    Rises linearly to the peak over the first ``warmup_share`` of the steps, then follows ``train.schedule``.
    """
    warmup = math.ceil(num_steps * train.warmup_share)
    if step < warmup:
        return train.learning_rate * (step + 1) / warmup
    through = min((step - warmup) / max(num_steps - warmup, 1), 1.0)
    return train.learning_rate * (_LEAST + (1 - _LEAST) * _height(train, through, curve))


def _height(train: TrainConfig, through: float, curve: Curve) -> float:
    """Where the rate is between the least and the peak, from 0 to 1, when this share of the way down is gone."""
    match train.schedule:
        case Plateau() as rule:
            kept = rule.factor ** num_plateaus(curve, rule.patience, rule.min_gain)
            return max(kept - _LEAST, 0.0) / (1 - _LEAST)
        case rule if rule.kind == "cosine":
            return 0.5 * (1 + math.cos(math.pi * through))
        case rule:
            return 1 - through if rule.kind == "linear" else 1.0
