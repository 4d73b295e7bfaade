"""All that turns the state of a user into a vector: the tower, and how it is told what a request carries."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raycl import schema
from raycl.data.features import Encoders
from raycl.data.states import States
from raycl.errors import CorruptRelease
from raycl.model import embed, inputs, weights
from raycl.model.ensemble import AnyUserTower
from raycl.model.inputs import FeatureRows
from raycl.model.spec import FeatureSizes
from raycl.storage.store import Store

CONTEXT_FILE = "context.json"
"""Beside the towers' weights: the fitted features of a request."""


@dataclass(frozen=True)
class UserSide:
    """A user tower, and the fitted features of the requests that it answers."""

    tower: AnyUserTower
    context: Encoders

    @classmethod
    def load(cls, store: Store) -> Self:
        """The user side of the towers under ``store``; CorruptRelease where its files disagree."""
        tower, context = weights.load_user(store), load_context(store)
        if FeatureSizes.of(context) != tower.context_sizes:
            raise CorruptRelease(
                f"{store.uri}/{CONTEXT_FILE} does not fit {weights.CONFIG_FILE} beside it: train again"
            )
        return cls(tower, context)

    @property
    def columns(self) -> list[str]:
        """Columns of sequences that states are made of besides those of every user, for ``reader.read``."""
        return [schema.context_column(feature.column) for feature in self.context.features]

    def vectors(self, states: States, users: FeatureRows) -> npt.NDArray[np.float32]:
        """Vectors (states, dim); ``users`` is the user table, and its last row stands for those who are not in it."""
        said = self.context.encode(pa.table(dict(states.context))) if self.context.features else None
        context = inputs.from_table(said, self.context, len(states))
        return embed.users(self.tower, states.history, states.user_row, users, states.age_s, context)


def load_context(store: Store) -> Encoders:
    """The fitted features of requests; CorruptRelease where the file holds none."""
    try:
        return Encoders.from_json(json.loads(store.read(CONTEXT_FILE)))
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise CorruptRelease(f"{store.uri}/{CONTEXT_FILE} holds no fitted features: {error!r}; train again") from error


def save_context(store: Store, context: Encoders) -> None:
    """Write what ``load_context`` reads."""
    store.write(CONTEXT_FILE, json.dumps(context.to_json()).encode())
