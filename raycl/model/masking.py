"""Feature tables with some features hidden, and which features to hide together."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from raycl.data.features import PADDING, UNKNOWN
from raycl.model.inputs import FeatureRows

_SAMPLE = 20_000
_BINS = 10

Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


def hide(features: FeatureRows, hidden: Tensor) -> FeatureRows:
    """``features`` with those unknown that ``hidden`` (rows, bags, then numbers, then vectors) marks."""
    num_bags, num_numbers = len(features.tokens), features.numbers.shape[1]
    tokens = []
    for bag, token in enumerate(features.tokens):
        unknown = torch.full_like(token, PADDING)
        unknown[:, 0] = UNKNOWN
        tokens.append(torch.where(hidden[:, bag : bag + 1], unknown, token))
    numbers, vectors = hidden[:, num_bags : num_bags + num_numbers], hidden[:, num_bags + num_numbers :]
    return FeatureRows(
        tuple(tokens),
        features.numbers.masked_fill(numbers, torch.nan),
        tuple(one.masked_fill(vectors[:, place : place + 1], torch.nan) for place, one in enumerate(features.vectors)),
    )


def num_features(features: FeatureRows) -> int:
    """How many features a row has."""
    return len(features.tokens) + features.numbers.shape[1] + len(features.vectors)


def correlation(features: FeatureRows, *, item_id: bool) -> Floats:
    """How much each feature tells of each other one, (num_features, num_features), from 0 to 1.

    Mutual information over the root of the product of the entropies, of first tokens and of tenths of numbers and of
    a vector's first component, on at most 20,000 rows. Features are bags, then numbers, then vectors, then with
    ``item_id`` the item itself, which tells all.
    """
    rows = np.linspace(0, len(features) - 1, min(len(features), _SAMPLE)).astype(np.int64)
    columns = [token[rows, 0].numpy().astype(np.int64) for token in features.tokens]
    columns += [_tenths(numbers) for numbers in features.numbers[rows].numpy().T]
    columns += [_tenths(vector[rows, 0].numpy()) for vector in features.vectors]
    columns += [np.arange(len(rows))] if item_id else []
    codes = [np.unique(column, return_inverse=True)[1] for column in columns]
    entropy = np.array([_entropy(code) for code in codes])
    found = np.eye(len(codes))
    for one in range(len(codes)):
        for other in range(one):
            joint = codes[one] * (codes[other].max(initial=0) + 1) + codes[other]
            both = float(np.sqrt(entropy[one] * entropy[other]))
            shared = (entropy[one] + entropy[other] - _entropy(joint)) / both if both > 0 else 0.0
            found[one, other] = found[other, one] = shared
    return found


def halves(correlated: Floats, generator: np.random.Generator) -> tuple[Flags, Flags]:
    """Which features (num_features,) two views hide: one drawn feature and what tells most of it, and the others.

    Correlated feature masking (Yao et al., CIKM 2021, section 3.3): what is hidden cannot be read from what is left.
    """
    num_features = len(correlated)
    drawn = generator.integers(num_features)
    order = np.argsort(-correlated[drawn] - 2.0 * (np.arange(num_features) == drawn), kind="stable")
    first = np.zeros(num_features, dtype=np.bool_)
    first[order[: num_features // 2]] = True
    return first, ~first


def _tenths(numbers: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """The tenth that each number lies in; unknown ones are by themselves."""
    known = np.isfinite(numbers)
    edges = np.quantile(numbers[known], np.linspace(0, 1, _BINS + 1)[1:-1]) if known.any() else numbers[:0]
    return np.where(known, np.searchsorted(edges, np.nan_to_num(numbers)), _BINS)


def _entropy(codes: npt.NDArray[np.int64]) -> float:
    """In nats."""
    counts = np.unique(codes, return_counts=True)[1]
    share = counts / counts.sum()
    return float(-(share * np.log(share)).sum())
