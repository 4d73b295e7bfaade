"""Which index to build: a decision with its reason, from sizes, the memory budget and the recall that is asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from raycl.config_index import COMPRESSED, LISTED, IndexConfig
from raycl.errors import ConfigError

FLAT_UP_TO = 50_000
PQ_TRAINING = 65_536
"""Vectors that the rotation and the codes learn from, at most."""
_TRAIN_PER_LIST = 64
_PQ_LEAST = 256
"""A byte of a product code names one of so many centroids, and each needs a vector to start from."""
_ID_BYTES = 8


@dataclass(frozen=True)
class Plan:
    """The kind that was chosen, as FAISS's index factory spells it, and why."""

    kind: str
    num_lists: int
    """0 for a kind without inverted lists."""
    reason: str
    factory: str = "Flat"
    metric: str = "inner_product"
    rerank: bool = False
    """Whether vectors of 16 bits are kept beside the index."""
    build_depth: int = 0
    """Of a graph."""
    index_bytes: int = 0
    """About what all shards take in memory."""
    pq_bytes: int = 0
    """Of a product code."""

    @property
    def sample_size(self) -> int:
        """Vectors to train on."""
        codes = PQ_TRAINING if self.kind in COMPRESSED else 0
        return max(self.num_lists * _TRAIN_PER_LIST, codes)


def choose(config: IndexConfig, num_items: int, dim: int, target: float) -> Plan:
    """The index for this many items of ``dim`` numbers, that is to find a share ``target`` of the exact answers.

    ConfigError where ``index.memory_bytes`` holds no index that was asked for.
    """
    options = _options(config, num_items, target)
    fitting = [option for option in options if _fits(config, num_items, dim, *option)]
    if not fitting:
        least = min(_bytes(config, num_items, dim, *option) for option in options)
        raise ConfigError(
            f"index.memory_bytes={config.memory_bytes} is too little for {num_items:,} items of {dim} dimensions, which"
            f" take {least:,} with index.kind={config.kind}: give more, or choose kind auto or ivf_pq with rerank never"
        )
    kind, rerank = fitting[0]
    reason = f"{num_items:,} items: {_words(kind, config, num_items, dim, rerank)} ({_why(config, options, fitting)})"
    if kind == "ivf_pq" and num_items < _PQ_LEAST:
        kind, rerank = "flat", False
        reason = f"{num_items:,} items: exact search (product codes need {_PQ_LEAST} vectors to learn from)"
    return Plan(
        kind=kind,
        num_lists=_num_lists(config, num_items) if kind in LISTED else 0,
        reason=reason,
        factory=_factory(kind, config, num_items, dim),
        metric=config.metric,
        rerank=rerank,
        build_depth=config.hnsw_build_depth if kind == "hnsw" else 0,
        index_bytes=_bytes(config, num_items, dim, kind, rerank),
        pq_bytes=pq_bytes(config, dim) if kind == "ivf_pq" else 0,
    )


Option = tuple[str, bool]
"""A kind, and whether it re-ranks."""


def _options(config: IndexConfig, num_items: int, target: float) -> list[Option]:
    """What may be built, the most wanted first."""
    if config.kind != "auto":
        return _with_rerank(config, config.kind)
    exact = num_items <= FLAT_UP_TO or target >= 1.0
    listed = [option for kind in ("ivf_sq8", "ivf_pq") for option in _with_rerank(config, kind)]
    # Codes alone order answers worse than codes with the vectors beside them, so those come first.
    listed.sort(key=lambda option: not option[1])
    scanned = _with_rerank(config, "sq8") if exact else []
    return [("flat", False) if exact else ("ivf_flat", False), *scanned, *listed]


def _with_rerank(config: IndexConfig, kind: str) -> list[Option]:
    if kind not in COMPRESSED or config.rerank == "never":
        return [(kind, False)]
    return [(kind, True)] if config.rerank == "always" else [(kind, True), (kind, False)]


def _fits(config: IndexConfig, num_items: int, dim: int, kind: str, rerank: bool) -> bool:
    return config.memory_bytes is None or _bytes(config, num_items, dim, kind, rerank) <= config.memory_bytes


def _bytes(config: IndexConfig, num_items: int, dim: int, kind: str, rerank: bool) -> int:
    code = {"sq8": dim, "ivf_sq8": dim, "ivf_pq": pq_bytes(config, dim)}.get(kind, 4 * dim)
    # Twice the links on the lowest level, where every vector is; the levels above add a few hundredths.
    links = 4 * 2 * config.hnsw_links + 16 if kind == "hnsw" else 0
    kept = 2 * dim + _ID_BYTES if rerank else 0
    lists = _num_lists(config, num_items) * 4 * dim * config.num_shards if kind in LISTED else 0
    return num_items * (code + links + kept + _ID_BYTES) + lists


def pq_bytes(config: IndexConfig, dim: int) -> int:
    """Bytes of a product code of ``dim`` numbers."""
    if config.pq_bytes is not None:
        return config.pq_bytes
    return max(size for size in range(1, max(dim // 4, 1) + 1) if dim % size == 0)


def _num_lists(config: IndexConfig, num_items: int) -> int:
    wanted = config.num_lists or 4 * math.isqrt(num_items)
    return max(1, min(wanted, num_items // 8))


def _factory(kind: str, config: IndexConfig, num_items: int, dim: int) -> str:
    lists, size = _num_lists(config, num_items), pq_bytes(config, dim)
    return {
        "flat": "Flat",
        "hnsw": f"HNSW{config.hnsw_links}",
        "sq8": "SQ8",
        "ivf_flat": f"IVF{lists},Flat",
        "ivf_sq8": f"IVF{lists},SQ8",
        "ivf_pq": f"OPQ{size},IVF{lists},PQ{size}np",  # no polysemous codes, which take long to learn and are not used
    }[kind]


def _words(kind: str, config: IndexConfig, num_items: int, dim: int, rerank: bool) -> str:
    lists = f"{_num_lists(config, num_items):,} inverted lists"
    named = {
        "flat": "exact search",
        "hnsw": f"a graph of {config.hnsw_links} links",
        "sq8": "a byte a dimension",
        "ivf_flat": lists,
        "ivf_sq8": f"{lists} of a byte a dimension",
        "ivf_pq": f"{lists} of {pq_bytes(config, dim)} bytes a vector",
    }[kind]
    return named + (", re-ranked on vectors of 16 bits" if rerank else "")


def _why(config: IndexConfig, options: Sequence[Option], fitting: Sequence[Option]) -> str:
    if options[0] == fitting[0]:
        return config.kind
    return f"{config.kind}, the first to fit into index.memory_bytes={config.memory_bytes:,}"
