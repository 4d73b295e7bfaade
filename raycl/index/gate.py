"""Whether a release may be published: a decision with its reasons, from measured evidence alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from raycl.config import GateConfig


@dataclass(frozen=True)
class Previous:
    """The release that was current when this one was judged."""

    name: str
    num_vectors: int
    agreement: float
    """Share of its answers to the held-out users that the new release gives too."""


@dataclass(frozen=True)
class Evidence:
    """What was measured of a release."""

    index_recall: float
    num_queries: int
    recall: float
    """Of the towers on the evaluation's ``part``, at ``recall_at`` items."""
    popularity_recall: float
    recall_at: int
    part: str
    num_items: int
    num_vectors: int
    """Items that the index holds."""
    num_null: int = 0
    """Items left out of it since their vector is zero."""
    num_not_finite: int = 0
    """Items left out of it since their vector has numbers that are not finite."""
    num_duplicates: int = 0
    """Items in it whose vector another one has that is counted already."""
    ndcg: float = 0.0
    """Of the held-out items in the index's answers."""
    exact_ndcg: float = 0.0
    """Of the held-out items in the exact answers to the same queries."""
    coverage: float = 1.0
    """Share of items that are in an answer."""
    index_bytes: int = 0
    search_ms: float = 0.0
    """Time in which 95 of 100 single queries are searched."""
    previous: Previous | None = None


@dataclass(frozen=True)
class Check:
    """One measure beside its bound."""

    name: str
    value: float
    bound: float
    unit: str = ""
    ceiling: bool = False
    """Whether the bound is the most, and not the least, that passes."""

    @property
    def passed(self) -> bool:
        """Not ``value < bound`` denied: what is no number must fail."""
        return self.value <= self.bound if self.ceiling else self.value >= self.bound

    def __str__(self) -> str:
        """``name value >= bound unit``, or the sign that holds instead."""
        sign = ("<=" if self.passed else ">") if self.ceiling else (">=" if self.passed else "<")
        return f"{self.name} {_number(self.value)} {sign} {self.bound:g}{self.unit}"


@dataclass(frozen=True)
class Verdict:
    """``reason`` tells every measure beside its bound, or those that failed where there are any."""

    publish: bool
    reason: str
    checks: tuple[Check, ...] = ()


def decide(evidence: Evidence, config: GateConfig) -> Verdict:
    """Publish only where every measure keeps within its bound."""
    checks = (*_of_search(evidence, config), *_of_vectors(evidence, config), *_beside_previous(evidence, config))
    failed = [str(check) for check in checks if not check.passed]
    return Verdict(not failed, "; ".join(failed or map(str, checks)), checks)


def ndcg(found: npt.NDArray[np.int64], targets: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """NDCG (num_queries,) of answers (num_queries, k), best first, with one relevant item each: 1 / log2(rank + 1)."""
    hit = found == targets[:, None]
    gain: npt.NDArray[np.float64] = hit @ (1.0 / np.log2(np.arange(2, found.shape[1] + 2)))
    return gain


def _of_search(evidence: Evidence, config: GateConfig) -> list[Check]:
    queries = f" on {evidence.num_queries:,} queries"
    if evidence.popularity_recall:
        over = evidence.recall / evidence.popularity_recall
    else:
        over = float("inf") if evidence.recall else 0.0
    loss = 1.0 - evidence.ndcg / evidence.exact_ndcg if evidence.exact_ndcg else 0.0
    found = [
        Check(f"index recall@{config.index_recall_at}", evidence.index_recall, config.min_index_recall, queries),
        Check(f"loss of ndcg@{config.index_recall_at}", loss, config.max_ndcg_loss, " of the exact search's", True),
        Check(f"recall@{evidence.recall_at}", evidence.recall, config.min_recall, f" on the {evidence.part} part"),
        Check("recall over popularity", over, config.min_over_popularity, " times"),
        Check("items in an answer", evidence.coverage, config.min_coverage, f" of {evidence.num_items:,}"),
    ]
    if config.max_search_ms is not None:
        found.append(Check("search of a query", evidence.search_ms, config.max_search_ms, " ms", True))
    return found


def _of_vectors(evidence: Evidence, config: GateConfig) -> list[Check]:
    items = max(evidence.num_items, 1)
    usable = evidence.num_items - evidence.num_null - evidence.num_not_finite
    of_items = f" of {evidence.num_items:,}"
    found = [
        Check("indexed share of items", evidence.num_vectors / max(usable, 1), 1.0, f" of {usable:,}"),
        Check("share of null vectors", evidence.num_null / items, config.max_null_share, of_items, True),
        Check(
            "share of vectors that are not finite",
            evidence.num_not_finite / items,
            config.max_not_finite_share,
            of_items,
            True,
        ),
        Check(
            "share of duplicate vectors",
            evidence.num_duplicates / max(evidence.num_vectors, 1),
            config.max_duplicate_share,
            f" of {evidence.num_vectors:,}",
            True,
        ),
    ]
    if config.max_index_bytes is not None:
        found.append(Check("size", evidence.index_bytes, config.max_index_bytes, " bytes", True))
    return found


def _beside_previous(evidence: Evidence, config: GateConfig) -> list[Check]:
    before = evidence.previous
    if before is None:
        return []
    change = evidence.num_vectors / max(before.num_vectors, 1) - 1.0
    of_before = f" of the {before.num_vectors:,} in release {before.name}"
    found = [Check("loss of items", max(-change, 0.0), config.max_item_loss, of_before, True)]
    if config.max_item_gain is not None:
        found.append(Check("gain of items", max(change, 0.0), config.max_item_gain, of_before, True))
    found.append(
        Check("agreement", before.agreement, config.min_agreement, f" with the answers of release {before.name}")
    )
    return found


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
