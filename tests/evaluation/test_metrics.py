"""Metrics of whole arrays equal those of a loop over users, and those of torchmetrics."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional import retrieval

from raycl.evaluation import metrics
from raycl.evaluation.metrics import ACCURACY, Floats
from tests.evaluation import naive


class Case(NamedTuple):
    """Ranked lists and targets of some users."""

    num_items: int
    ks: tuple[int, ...]
    ranked: list[list[int]]
    targets: list[set[int]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    num_items = draw(st.integers(1, 9))
    items = st.integers(0, num_items - 1)
    ks = tuple(draw(st.lists(st.integers(1, 12), min_size=1, max_size=3, unique=True)))
    width = min(max(ks), num_items)
    users = draw(st.integers(0, 6))
    ranked = [draw(st.lists(items, max_size=width, unique=True)) for _ in range(users)]
    targets = [draw(st.sets(items, min_size=1)) for _ in range(users)]
    return Case(num_items, ks, ranked, targets)


def measured(case: Case) -> dict[str, Floats]:
    """``accuracy`` of the arrays that these lists and targets make."""
    width = min(max(case.ks), case.num_items)
    rows = np.array([one + [-1] * (width - len(one)) for one in case.ranked], dtype=np.int64).reshape(-1, width)
    hits = np.array(
        [[item in wanted for item in row] for row, wanted in zip(rows.tolist(), case.targets, strict=True)],
        dtype=np.bool_,
    ).reshape(rows.shape)
    return metrics.accuracy(hits, np.array([len(wanted) for wanted in case.targets], np.int64), case.ks)


def test_one_user_with_one_target_by_hand() -> None:
    found = measured(Case(10, (1, 3), [[7, 4, 1]], [{4}]))
    assert all(found[f"{name}_at_1"] == [0.0] for name in ACCURACY)
    at_3 = {name: float(found[f"{name}_at_3"][0]) for name in ACCURACY}
    gain = 1.0 / math.log2(3)
    assert at_3 == pytest.approx(
        {"recall": 1.0, "precision": 1 / 3, "hit_rate": 1.0, "ndcg": gain, "mrr": 0.5, "map": 0.5}
    )


def test_several_targets_share_recall_and_the_ideal_list_by_hand() -> None:
    found = measured(Case(10, (2, 4), [[5, 0, 6, 7]], [{5, 6, 9}]))
    assert found["recall_at_4"] == pytest.approx([2 / 3])
    assert found["precision_at_4"] == pytest.approx([1 / 2])
    assert found["ndcg_at_2"] == pytest.approx([1 / (1 + 1 / math.log2(3))])
    assert found["map_at_2"] == pytest.approx([1 / 2])
    assert found["map_at_4"] == pytest.approx([(1 + 2 / 3) / 3])


def test_the_ideal_list_has_one_of_everything_but_precision() -> None:
    found = measured(Case(9, (2, 9), [[3, 1, 2, 0, 4, 5, 6, 7, 8]], [{1, 2, 3}]))
    assert all(found[f"{name}_at_9"] == pytest.approx([1.0]) for name in ACCURACY if name != "precision")
    assert found["map_at_2"] == found["ndcg_at_2"] == found["precision_at_2"] == [1.0]


def test_a_k_beyond_the_catalogue_judges_the_whole_list() -> None:
    found = measured(Case(3, (3, 50), [[2, 0, 1]], [{0, 1}]))
    assert all(found[f"{name}_at_50"] == found[f"{name}_at_3"] for name in ACCURACY if name != "precision")
    assert found["precision_at_50"] == pytest.approx([2 / 50])


@given(cases())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_arrays_agree_with_the_loop(case: Case) -> None:
    found = measured(case)
    assert len(found) == len(ACCURACY) * len(case.ks)
    for user, (ranked, targets) in enumerate(zip(case.ranked, case.targets, strict=True)):
        for k in case.ks:
            truth = naive.metrics_of_user(ranked, targets, k)
            assert {name: float(found[name][user]) for name in truth} == pytest.approx(truth)


THEIRS = {
    "recall": retrieval.retrieval_recall,
    "precision": retrieval.retrieval_precision,
    "hit_rate": retrieval.retrieval_hit_rate,
    "ndcg": retrieval.retrieval_normalized_dcg,
    "mrr": retrieval.retrieval_reciprocal_rank,
    "map": retrieval.retrieval_average_precision,
}


@given(st.integers(0, 2**31), st.integers(1, 40), st.integers(1, 60))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_arrays_agree_with_torchmetrics(seed: int, num_items: int, k: int) -> None:
    """Of a whole ranked catalogue; its average precision divides by the hits, ours by what the ideal list has."""
    generator = np.random.default_rng(seed)
    ranked = generator.permutation(num_items)
    targets = set(generator.choice(num_items, int(generator.integers(1, num_items + 1)), replace=False).tolist())
    found = measured(Case(num_items, (k,), [ranked[:k].tolist()], [targets]))
    scores = torch.zeros(num_items)
    scores[torch.from_numpy(ranked)] = torch.arange(num_items, 0, -1).float()
    relevant = torch.zeros(num_items, dtype=torch.bool)
    relevant[list(targets)] = True
    num_hits = len(targets & set(ranked[:k].tolist()))
    for name, theirs in THEIRS.items():
        expected = float(theirs(scores, relevant, top_k=k))
        if name == "map":
            expected *= num_hits / min(len(targets), k)
        assert float(found[f"{name}_at_{k}"][0]) == pytest.approx(expected, abs=1e-6), name


@given(st.integers(0, 2**31), st.integers(2, 30), st.sampled_from([2, 5, 1_000]))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_the_area_under_the_curve_agrees_with_the_loop_and_with_torchmetrics(
    seed: int, num_items: int, distinct: int
) -> None:
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, distinct, num_items).astype(np.float64)
    targets = set(generator.choice(num_items, int(generator.integers(1, num_items)), replace=False).tolist())
    others = [item for item in range(num_items) if item not in targets]
    counts = [(sum(scores[others] > scores[one]), sum(scores[others] == scores[one])) for one in targets]
    higher, same = np.array(counts, dtype=np.int64).T
    found = metrics.auc(np.zeros(len(targets), np.int64), higher, same, np.array([len(others)]))
    assert found == pytest.approx([naive.auc(scores.tolist(), targets, set())])
    relevant = torch.tensor([item in targets for item in range(num_items)])
    theirs = retrieval.retrieval_auroc(torch.from_numpy(scores / distinct), relevant)
    assert found == pytest.approx([float(theirs)], abs=1e-6)


def test_a_user_without_a_target_or_without_another_candidate_has_no_area() -> None:
    found = metrics.auc(np.array([1]), np.array([0]), np.array([0]), np.array([5, 0, 3]))
    assert np.isnan(found).all()
