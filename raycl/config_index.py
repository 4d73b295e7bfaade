"""The ``index`` and ``gate`` sections: how the sharded index is made, and when its release may be published."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from raycl.config_values import Positive, Section, Share


class IndexConfig(Section):
    """The sharded index of item vectors."""

    kind: Literal["auto", "flat", "ivf_flat"] = "auto"
    """``auto``: exact (flat) up to 50,000 items, inverted lists above."""
    num_shards: Positive = 2
    num_lists: Positive | None = None
    """Inverted lists over the whole index; by default 4 times the square root of the number of items."""
    items_per_block: Positive = 100_000
    use_gpu: Literal["auto", "always", "never"] = "auto"


class GateConfig(Section):
    """When a release may be published."""

    index_recall_at: Positive = 100
    """Items that the search is judged at; it is made as good at 5 and at 20 times as many, since what an answer leaves
    out is searched for too."""
    min_index_recall: Share = 0.95
    """Against exact search, with held-out users as queries; inverted lists are probed deeper until it holds."""
    num_queries: Positive = 2_000
    min_recall: Share = 0.0
    """Floor on the towers' recall at the largest ``evaluation.ks``, on the test part."""
    min_over_popularity: Annotated[float, Field(ge=0.0)] = 0.0
    """Floor on that recall divided by the popularity baseline's."""
