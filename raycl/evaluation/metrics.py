"""Retrieval metrics of ranked lists against held-out items, as sums that parts of the users add up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

NAMES = ("recall", "hit_rate", "ndcg", "mrr")


@dataclass
class Sums:
    """Over users: how many, and for each metric the sum and the sum of squares; the items that any list of k holds."""

    num_users: int = 0
    totals: dict[str, float] = field(default_factory=dict)
    squares: dict[str, float] = field(default_factory=dict)
    covered: dict[int, npt.NDArray[np.bool_]] = field(default_factory=dict)
    """For each k, (num_items,)."""

    def add(self, other: Sums) -> None:
        """Add the sums of other users."""
        self.num_users += other.num_users
        for mine, theirs in ((self.totals, other.totals), (self.squares, other.squares)):
            for name, value in theirs.items():
                mine[name] = mine.get(name, 0.0) + value
        for k, items in other.covered.items():
            self.covered[k] = self.covered[k] | items if k in self.covered else items.copy()

    def to_json(self) -> dict[str, Any]:
        """Everything but what the lists held, as plain values."""
        return {
            "num_users": self.num_users,
            "totals": self.totals,
            "squares": self.squares,
            "ks": list(self.covered),
        }

    def covered_bits(self) -> bytes:
        """What the lists held: for each k a row of bits, one an item, filled up to whole bytes."""
        return b"".join(np.packbits(items).tobytes() for items in self.covered.values())

    @classmethod
    def from_json(cls, plain: Mapping[str, Any], covered: bytes, num_items: int) -> Sums:
        """The sums that ``to_json`` and ``covered_bits`` told."""
        rows = np.frombuffer(covered, dtype=np.uint8).reshape(len(plain["ks"]), -(-num_items // 8))
        bits = np.unpackbits(rows, axis=1, count=num_items).astype(np.bool_)
        found = {int(k): row for k, row in zip(plain["ks"], bits, strict=True)}
        return cls(int(plain["num_users"]), dict(plain["totals"]), dict(plain["squares"]), found)

    def summary(self) -> dict[str, float]:
        """Means as ``recall_at_20``, half-widths of 95 % normal intervals as ``recall_at_20_ci``, and coverage."""
        found: dict[str, float] = {}
        count = max(self.num_users, 1)
        for name, total in self.totals.items():
            mean = total / count
            variance = max(self.squares[name] / count - mean * mean, 0.0)
            found[name] = mean
            found[f"{name}_ci"] = 1.96 * float(np.sqrt(variance / count))
        for k, items in self.covered.items():
            found[f"coverage_at_{k}"] = float(items.mean())
        return found


def measure(
    ranked: npt.NDArray[np.int64],
    hits: npt.NDArray[np.bool_],
    num_targets: npt.NDArray[np.int64],
    ks: Iterable[int],
    num_items: int,
) -> Sums:
    """Sums over users with one target or more.

    ``ranked`` (users, max k) are item rows, best first, -1 where the list ends early; ``hits`` of the same shape marks
    targets; ``num_targets`` (users,). Recall is hits over targets; NDCG has binary gains and the ideal of
    ``min(targets, k)`` (Järvelin and Kekäläinen, TOIS 2002); MRR is 1 over the place of the first hit, 0 without one.
    """
    sums = Sums(num_users=len(ranked))
    discounts = 1.0 / np.log2(np.arange(ranked.shape[1]) + 2.0)
    for k in ks:
        inside = hits[:, :k]
        found = inside.sum(1)
        ideal = np.cumsum(discounts[:k])[np.minimum(num_targets, min(k, len(discounts))) - 1]
        first = np.where(found > 0, 1.0 / (inside.argmax(1) + 1.0), 0.0)
        values = {
            "recall": found / num_targets,
            "hit_rate": (found > 0).astype(np.float64),
            "ndcg": (inside * discounts[:k]).sum(1) / ideal,
            "mrr": first,
        }
        for name in NAMES:
            sums.totals[f"{name}_at_{k}"] = float(values[name].sum())
            sums.squares[f"{name}_at_{k}"] = float((values[name] ** 2).sum())
        covered = np.zeros(num_items, dtype=np.bool_)
        listed = ranked[:, :k]
        covered[listed[listed >= 0]] = True
        sums.covered[k] = covered
    return sums
