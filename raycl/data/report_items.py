"""What the data report says of the items, from one part of the vocabulary at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raycl import schema
from raycl.data.columns import whole
from raycl.data.histogram import Histogram
from raycl.data.id_map import IdMap

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ItemCounts:
    """Items that may be retrieved, by their good rows in the log, and those that training never sees."""

    sizes: Histogram
    cold: int
    targets: Mapping[str, int]
    """Of ``val`` and ``test``, how many targets there are."""
    cold_targets: Mapping[str, int]
    """Those whose item training never sees."""

    @classmethod
    def of(cls, vocabulary: pa.Table, held_out: Mapping[str, Ints]) -> Self:
        """``vocabulary`` has the columns of ``schema.vocabulary``; ``held_out`` counts targets, in its order."""
        active = ~vocabulary["retired"].to_numpy()
        unseen = vocabulary["train_count"].to_numpy() == 0
        return cls(
            Histogram.of(vocabulary["log_count"].to_numpy()[active]),
            int((unseen & active).sum()),
            {part: int(targets.sum()) for part, targets in held_out.items()},
            {part: int(targets[unseen].sum()) for part, targets in held_out.items()},
        )

    @classmethod
    def merged(cls, parts: Sequence[ItemCounts]) -> ItemCounts:
        """The items of all parts, in any order."""
        held_out = schema.SPLITS[1:]
        return cls(
            Histogram.merged([part.sizes for part in parts]),
            sum(part.cold for part in parts),
            {name: sum(part.targets[name] for part in parts) for name in held_out},
            {name: sum(part.cold_targets[name] for part in parts) for name in held_out},
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**vars(self), "sizes": self.sizes.to_json()}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """What ``to_json`` made."""
        return cls(**{**plain, "sizes": Histogram.from_json(plain["sizes"])})


@dataclass(frozen=True)
class ItemDrift:
    """How the items of two vocabularies differ; parts that share no item add up."""

    new: int = 0
    """Items with events now and none before."""
    new_events: int = 0
    gone: int = 0
    gone_events: int = 0
    divergence: float = 0.0
    """The part's addend to the squared Jensen-Shannon distance, in bits."""

    @classmethod
    def of(cls, before: pa.Table, now: pa.Table, total_before: int, total_now: int) -> Self:
        """Two vocabularies, or the same part of both, whose events are ``total_before`` and ``total_now`` in all.

        Ids of another type are other items; what is retired has no events.
        """
        first, second = _side_by_side(before, now)
        new, gone = (first == 0) & (second > 0), (first > 0) & (second == 0)
        shares = first / max(total_before, 1), second / max(total_now, 1)
        mixture = (shares[0] + shares[1]) / 2
        divergence = sum(information(one, mixture) for one in shares) / 2
        return cls(int(new.sum()), int(second[new].sum()), int(gone.sum()), int(first[gone].sum()), divergence)

    @classmethod
    def merged(cls, parts: Sequence[ItemDrift]) -> Self:
        """The drift of all parts."""
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return cls(*(sum(column) for column in columns)) if parts else cls()

    def distance(self, total_before: int, total_now: int) -> float:
        """Jensen-Shannon distance to base 2; one where a side has no events and the other has some."""
        if not (total_before and total_now):
            return float(bool(total_before or total_now))
        return float(np.sqrt(np.clip(self.divergence, 0.0, 1.0)))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def information(shares: npt.NDArray[np.float64], mixture: npt.NDArray[np.float64]) -> float:
    """The Kullback-Leibler divergence of the mixture from the shares, in bits."""
    some = shares > 0
    return float(np.sum(shares[some] * np.log2(shares[some] / mixture[some])))


def _side_by_side(before: pa.Table, now: pa.Table) -> tuple[Ints, Ints]:
    """Counts of every item of either table, in both."""
    old, new = _counts(before), _counts(now)
    if before.schema.field("item").type != now.schema.field("item").type:
        return np.append(old, np.zeros_like(new)), np.append(np.zeros_like(old), new)
    places = IdMap(whole(before["item"])).rows(now["item"])
    alone = np.ones(len(old), dtype=np.bool_)
    alone[places[places >= 0]] = False
    shared = np.where(places >= 0, np.append(old, 0)[places], 0)
    return np.append(shared, old[alone]), np.append(new, np.zeros(int(alone.sum()), dtype=np.int64))


def _counts(table: pa.Table) -> Ints:
    return np.where(table["retired"].to_numpy(), 0, table["log_count"].to_numpy())
