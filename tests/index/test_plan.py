"""Which index is chosen, and the reason that is given."""

from __future__ import annotations

from typing import Any

import pytest

from raycl.config import IndexConfig
from raycl.errors import ConfigError
from raycl.index.plan import PQ_TRAINING, Plan, choose

KINDS = ["flat", "hnsw", "sq8", "ivf_flat", "ivf_sq8", "ivf_pq"]


def chosen(num_items: int, target: float = 0.95, dim: int = 64, **config: Any) -> Plan:
    return choose(IndexConfig(**config), num_items, dim, target)


@pytest.mark.parametrize(("num_items", "kind"), [(1, "flat"), (50_000, "flat"), (50_001, "ivf_flat")])
def test_auto_is_exact_up_to_fifty_thousand_items(num_items: int, kind: str) -> None:
    assert chosen(num_items).kind == kind


def test_auto_is_exact_where_every_answer_is_asked_for() -> None:
    assert chosen(2_000_000, 1.0).kind == "flat"
    assert chosen(2_000_000, 0.999).kind == "ivf_flat"


@pytest.mark.parametrize(
    ("megabytes", "kind", "rerank"),
    [
        (400, "ivf_flat", False),
        (250, "ivf_sq8", True),
        (180, "ivf_pq", True),
        (90, "ivf_sq8", False),
        (40, "ivf_pq", False),
    ],
)
def test_auto_takes_the_first_kind_that_the_memory_holds(megabytes: int, kind: str, rerank: bool) -> None:
    plan = chosen(1_000_000, memory_bytes=megabytes * 1_000_000)
    assert (plan.kind, plan.rerank) == (kind, rerank)
    assert plan.index_bytes <= megabytes * 1_000_000


def test_the_budget_decides_with_the_dimension() -> None:
    assert chosen(1_000_000, dim=32, memory_bytes=250_000_000).kind == "ivf_flat"
    assert chosen(40_000, memory_bytes=10_000_000).kind == "sq8"
    assert chosen(40_000, memory_bytes=10_000_000, num_shards=16).kind == "sq8"


def test_the_reason_names_what_decided() -> None:
    assert chosen(1_000_000).reason == "1,000,000 items: 4,000 inverted lists (auto)"
    assert chosen(2_000, kind="flat").reason == "2,000 items: exact search (flat)"
    assert chosen(1_000_000, memory_bytes=180_000_000).reason == (
        "1,000,000 items: 4,000 inverted lists of 16 bytes a vector, re-ranked on vectors of 16 bits"
        " (auto, the first to fit into index.memory_bytes=180,000,000)"
    )


@pytest.mark.parametrize("kind", ["auto", *KINDS])
def test_a_budget_that_holds_nothing_is_refused_with_what_it_takes(kind: str) -> None:
    with pytest.raises(ConfigError, match=r"index\.memory_bytes=1000 is too little for 1,000,000 items of 64 .*: give"):
        chosen(1_000_000, kind=kind, memory_bytes=1_000)


@pytest.mark.parametrize(
    ("kind", "factory"),
    [
        ("flat", "Flat"),
        ("hnsw", "HNSW32"),
        ("sq8", "SQ8"),
        ("ivf_flat", "IVF400,Flat"),
        ("ivf_sq8", "IVF400,SQ8"),
        ("ivf_pq", "OPQ16,IVF400,PQ16np"),
    ],
)
def test_a_plan_says_what_faiss_is_to_make(kind: str, factory: str) -> None:
    plan = chosen(10_000, kind=kind)
    assert plan.factory == factory
    assert plan.num_lists == (400 if kind.startswith("ivf") else 0)


@pytest.mark.parametrize(("dim", "pq_bytes"), [(64, 16), (100, 25), (60, 15), (13, 1), (8, 2), (2, 1), (34, 2)])
def test_a_product_code_has_a_divisor_of_the_dimension(dim: int, pq_bytes: int) -> None:
    assert chosen(100_000, dim=dim, kind="ivf_pq").pq_bytes == pq_bytes


def test_too_few_vectors_for_product_codes_are_searched_exactly() -> None:
    plan = chosen(255, kind="ivf_pq")
    assert (plan.kind, plan.factory, plan.num_lists, plan.rerank) == ("flat", "Flat", 0, False)
    assert plan.reason == "255 items: exact search (product codes need 256 vectors to learn from)"
    assert chosen(256, kind="ivf_pq").kind == "ivf_pq"


@pytest.mark.parametrize(
    ("wanted", "num_items", "num_lists"), [(10, 10_000, 10), (5_000, 10_000, 1_250), (None, 80, 10), (4, 7, 1)]
)
def test_every_list_has_eight_items_or_more(wanted: int | None, num_items: int, num_lists: int) -> None:
    assert chosen(num_items, kind="ivf_flat", num_lists=wanted).num_lists == num_lists


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rerank", ["auto", "always", "never"])
def test_only_what_is_compressed_is_re_ranked(kind: str, rerank: str) -> None:
    compressed = kind in ("sq8", "ivf_sq8", "ivf_pq")
    assert chosen(10_000, kind=kind, rerank=rerank).rerank == (compressed and rerank != "never")


def test_the_sample_is_what_lists_and_codes_need() -> None:
    assert chosen(10_000, kind="flat").sample_size == chosen(10_000, kind="hnsw").sample_size == 0
    assert chosen(1_000_000, kind="ivf_flat").sample_size == 64 * 4_000
    assert chosen(10_000, kind="ivf_pq").sample_size == PQ_TRAINING
