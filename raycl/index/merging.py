"""Shards of inverted lists as one index, for whoever holds them all: one list is gone through where there were many."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from raycl.index.search import listed

_DEVIATIONS = 3


def together(shards: Iterable[Any], num_shards: int) -> list[Any]:
    """All shards as one FAISS index, where they are inverted lists that share quantizer and codec; else as they are.

    Each query is then answered by one search with one list of the best, in place of one a shard: twice as fast where
    lists are short. One shard is in memory beside what there is already; ``num_shards`` says how many are to come.
    """
    found: list[Any] = []
    for shard in shards:
        lists = listed(shard)
        if lists is None or not found:
            found.append(shard)
            if lists is not None:
                _reserve(lists, num_shards)
            continue
        into = listed(found[0])
        into.invlists.merge_from(lists.invlists, 0)
        into.ntotal += lists.ntotal
        if found[0] is not into:
            found[0].ntotal = into.ntotal
    return found


def _reserve(lists: Any, num_shards: int) -> None:
    """Make room for as many shards as this one, so that no list grows by doubling: few of them will be longer."""
    held = np.array([lists.invlists.list_size(number) for number in range(lists.nlist)])
    room = num_shards * held + _DEVIATIONS * np.sqrt(num_shards * held) + num_shards
    for number in np.flatnonzero(held) if num_shards > 1 else ():
        lists.invlists.resize(int(number), int(room[number]))
        lists.invlists.resize(int(number), int(held[number]))
