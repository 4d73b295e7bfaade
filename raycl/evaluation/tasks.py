"""Evaluation of one file of held-out sequences: read, embed the users, rank, sum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from raycl.config import EvaluationConfig
from raycl.data import reader
from raycl.data.handoff import Pairs
from raycl.evaluation import ranking
from raycl.evaluation.metrics import Sums
from raycl.model import embed, inputs, weights
from raycl.model.inputs import FeatureRows
from raycl.storage.store import Store


@dataclass(frozen=True)
class Measured:
    """The towers' sums, and those of the popularity baseline on the same users."""

    towers: Sums
    popularity: Sums


def measure_file(
    pairs: Pairs, towers: Store, item_vectors: npt.NDArray[np.float32], config: EvaluationConfig, path: str
) -> Measured:
    """Measure the users of one file of ``val`` or ``test``."""
    sequences = reader.read(pairs.store, [path])
    vectors = user_vectors(pairs, towers, sequences)
    items = torch.from_numpy(np.array(item_vectors))
    popular = ranking.popularity(pairs.train_counts())
    num_items = len(item_vectors)

    def by_towers(users: slice) -> torch.Tensor:
        return torch.from_numpy(vectors[users]) @ items.T

    def by_popularity(users: slice) -> torch.Tensor:
        return popular.expand(users.stop - users.start, -1)

    return Measured(
        ranking.evaluate(sequences, by_towers, config.ks, num_items, config.users_per_block),
        ranking.evaluate(sequences, by_popularity, config.ks, num_items, config.users_per_block),
    )


def user_vectors(pairs: Pairs, towers: Store, sequences: reader.Sequences) -> npt.NDArray[np.float32]:
    """Vectors (users, dim) of each user's state before the first target."""
    history = sequences.states(pairs.rules)
    return embed.users(weights.load_user(towers), history, sequences.user_row, user_features(pairs))


def user_features(pairs: Pairs) -> FeatureRows:
    """Features of the user table, and a last row for users who are not in it."""
    encoded = pairs.encoded("users")
    return inputs.from_table(encoded, pairs.encoders("users"), encoded.num_rows if encoded else 0, unknown_row=True)


def item_features(pairs: Pairs) -> FeatureRows:
    """Features of every item of the vocabulary."""
    return inputs.from_table(pairs.encoded("items"), pairs.encoders("items"), pairs.vocabulary().num_rows)
