"""The learning rate as a function of the step alone."""

from __future__ import annotations

import math


def learning_rate(step: int, num_steps: int, peak: float, warmup_share: float) -> float:
    """Rises linearly to ``peak`` over the first ``warmup_share`` of the steps, then falls as a half cosine to 1 %."""
    warmup = math.ceil(num_steps * warmup_share)
    if step < warmup:
        return peak * (step + 1) / warmup
    through = (step - warmup) / max(num_steps - warmup, 1)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(through, 1.0))))
