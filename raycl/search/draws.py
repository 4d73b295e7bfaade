"""Which values the trials of a search get: the same for a seed on every machine, and more trials keep the first."""

from __future__ import annotations

import json
import math
import random
from typing import Any

from raycl.config_search import SearchConfig, Space

_DIGITS = 6


def draw(search: SearchConfig) -> list[dict[str, Any]]:
    """By trial: a value for each field, no two trials alike.

    ``num_trials`` of them, or all combinations where there are fewer. A field's values do not depend on which others
    are searched, unless a combination came twice and was passed over.
    """
    wanted = min(search.num_trials, math.prod(_num_values(space) for space in search.fields.values()))
    found: dict[str, dict[str, Any]] = {}
    number = 0
    while len(found) < wanted:
        values = {
            name: _one(space, random.Random(f"{search.seed}/{number}/{name}")) for name, space in search.fields.items()
        }
        found.setdefault(json.dumps(values, sort_keys=True, default=str), values)
        number += 1
    return list(found.values())


def _num_values(space: Space) -> float:
    if space.choice is not None:
        return len({json.dumps(value, sort_keys=True, default=str) for value in space.choice})
    ends = space.integers or space.log_integers
    return math.inf if ends is None else ends[1] - ends[0] + 1


def _one(space: Space, generator: random.Random) -> Any:
    share = generator.random()
    if space.choice is not None:
        return space.choice[int(share * len(space.choice))]
    if space.uniform is not None:
        low, high = space.uniform
        return _short(low + share * (high - low), low, high)
    if space.log_uniform is not None:
        low, high = space.log_uniform
        return _short(low * (high / low) ** share, low, high)
    if space.integers is not None:
        first, last = space.integers
        return first + int(share * (last - first + 1))
    assert space.log_integers is not None
    first, last = space.log_integers
    return min(int(first * ((last + 1) / first) ** share), last)


def _short(value: float, low: float, high: float) -> float:
    """``value`` in as many digits as a person reads, and still within its ends."""
    return min(max(float(f"{value:.{_DIGITS}g}"), low), high)
