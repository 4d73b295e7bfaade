"""The ``index`` and ``gate`` sections: how the sharded index is made, and when its release may be published."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from raycl.config_values import Positive, Section, Share

COMPRESSED = ("sq8", "ivf_sq8", "ivf_pq")
"""Kinds whose scores are not exact, so that exact vectors beside them can put their answers in order."""
LISTED = ("ivf_flat", "ivf_sq8", "ivf_pq")
"""Kinds of inverted lists."""


class IndexConfig(Section):
    """The sharded index of item vectors."""

    kind: Literal["auto", "flat", "hnsw", "sq8", "ivf_flat", "ivf_sq8", "ivf_pq"] = "auto"
    """``flat``: exact; ``hnsw``: a graph; ``sq8``: a byte a dimension; ``ivf_...``: inverted lists of whole vectors, of
    bytes, or of product codes after a learned rotation (OPQ). ``auto`` chooses by size, dimension, ``memory_bytes`` and
    ``gate.min_index_recall``, and says why: exact up to 50,000 items, inverted lists above."""
    metric: Literal["inner_product", "l2"] = "inner_product"
    """``inner_product`` of unit vectors is their cosine; with ``l2`` a score is minus the squared distance."""
    num_shards: Positive = 2
    num_lists: Positive | None = None
    """Inverted lists over the whole index; by default 4 times the square root of the number of items."""
    pq_bytes: Positive | None = None
    """Bytes of a product code, a divisor of ``model.dim``; by default the largest one up to a quarter of it."""
    hnsw_links: Annotated[int, Field(ge=4, le=256)] = 32
    """Neighbours that a vector of a graph is linked to, twice as many on its lowest level."""
    hnsw_build_depth: Positive = 200
    """Candidates looked at for these links (efConstruction)."""
    rerank: Literal["auto", "always", "never"] = "auto"
    """Keep the vectors in 16 bits beside a compressed index and put its best candidates in order by them. ``auto``:
    where they fit into ``memory_bytes``."""
    memory_bytes: Positive | None = None
    """Most that all shards together may take in memory; by default anything."""
    items_per_block: Positive = 100_000
    """Items embedded in one task."""
    use_gpu: Literal["auto", "always", "never"] = "auto"
    """For embedding and training; ``auto``: where the cluster has one."""


class GateConfig(Section):
    """When a release may be published; ``null`` leaves a check out."""

    index_recall_at: Positive = 100
    """Items that the search is judged at; it is made as good at 5 and at 20 times as many, since what an answer leaves
    out is searched for too."""
    min_index_recall: Share = 0.95
    """Against exact search, with held-out users as queries; the search goes deeper until it holds."""
    num_queries: Positive = 2_000
    max_ndcg_loss: Share = 0.05
    """Share of the exact search's NDCG, of the held-out users' next items, that the index may lose."""
    min_recall: Share = 0.0
    """Floor on the towers' recall at the largest ``evaluation.ks``, on the test part."""
    min_over_popularity: Annotated[float, Field(ge=0.0)] = 0.0
    """Floor on that recall divided by the popularity baseline's."""
    max_null_share: Share = 0.0
    """Of items, those whose vector is zero; they are not in the index."""
    max_not_finite_share: Share = 0.0
    """Of items, those whose vector has numbers that are not finite; they are not in the index."""
    max_duplicate_share: Share = 0.5
    """Of indexed items, those whose vector another one has: many, where items have few features and no id."""
    min_coverage: Share = 0.0
    """Of items, those in the answer of any query."""
    max_item_loss: Share = 0.2
    """Fewer indexed items than the release that is current, as a share of its items."""
    max_item_gain: Annotated[float, Field(gt=0.0)] | None = None
    """More indexed items than the release that is current, as a share of its items."""
    min_agreement: Share = 0.0
    """Of the current release's answers to the same users, those that the new one gives too. Towers that were trained
    anew agree little where they know little."""
    max_index_bytes: Positive | None = None
    max_search_ms: Annotated[float, Field(gt=0.0)] | None = None
    """Time in which 95 of 100 single queries are searched, in all shards one after another on one thread."""
