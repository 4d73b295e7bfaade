"""Items that a user met one after the other in training: what an encoder of words is tuned on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from raycl.data.hashing import hash_ids, mix
from raycl.data.packed import Sequences, ranges
from raycl.data.splits import TRAIN, VAL

Rows = npt.NDArray[np.int32]
Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Successions:
    """Pairs of different items, in the order in which they are drawn."""

    items: Rows
    """(pairs, 2): rows of the vocabulary, the earlier item first"""
    keys: Hashes
    """(pairs,), ascending: a hash of the user, the item and the place among the user's events"""


def of(packed: Sequences, users: Any, seed: int) -> Successions:
    """All of these users, whose raw ids are ``users``; the same whatever other users stand beside them.

    They are made of the events that training has targets of, and of no other: not of held-out events, nor of those that
    are only history, as a cold user's. Of events at one moment, which have no order, ``seed`` draws one.
    """
    places, owners = ranges(packed.bounds[TRAIN], packed.bounds[VAL])
    salt = mix(np.array([seed % 2**64], dtype=np.uint64))
    drawn = mix((hash_ids(users) ^ salt)[owners] ^ mix(packed.items[places].astype(np.uint64)))
    order = np.lexsort((drawn, packed.times_ms[places], owners))
    items, owner, drawn = packed.items[places[order]], owners[order], drawn[order]
    step = np.arange(len(owner)) - np.searchsorted(owner, owner)  # so that a pair that comes again has another key
    follows = (owner[1:] == owner[:-1]) & (items[1:] != items[:-1])
    keys = mix(drawn[1:] ^ mix(step[1:].astype(np.uint64)))[follows]
    found = np.stack([items[:-1], items[1:]], axis=1)[follows]
    return first(Successions(found, keys), len(found))


def first(found: Successions, most: int) -> Successions:
    """At most so many, those of the least keys: a draw that does not depend on how the users were parted."""
    order = np.argsort(found.keys, kind="stable")[:most]
    return Successions(found.items[order], found.keys[order])


def together(parts: Iterable[Successions], most: int) -> Successions:
    """At most so many of all parts, which are read one at a time."""
    found = Successions(np.zeros((0, 2), dtype=np.int32), np.zeros(0, dtype=np.uint64))
    for part in parts:
        items, keys = np.concatenate([found.items, part.items]), np.concatenate([found.keys, part.keys])
        found = first(Successions(items, keys), most)
    return found
