"""Search in a release and what joined it: what an index that was built with the delta in it answers."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from raycl.index.delta_search import JoinedIndex
from raycl.index.joined import Delta
from raycl.index.nearest import exact, score_all
from raycl.index.search import Depth, ShardedIndex
from raycl.index.selective import SelectiveIndex
from tests.index.builders import of_plan, plan_of, sharded, unit_vectors

BASE, DIM = 60, 16


def l2(vectors: Any) -> ShardedIndex:
    index: Any = faiss.IndexIDMap2(faiss.IndexFlatL2(vectors.shape[1]))
    index.add_with_ids(vectors, np.arange(len(vectors)))
    return ShardedIndex([index], [])


class Case:
    """A release's index and a delta of 20 vectors, some of them of rows that changed, and the vectors as they are."""

    def __init__(self, kind: str, seed: int) -> None:
        generator = np.random.default_rng(seed)
        vectors, more = unit_vectors(BASE, DIM, seed), unit_vectors(20, DIM, 100 + seed)
        self.hidden = np.sort(generator.choice(BASE, int(generator.integers(0, BASE + 1)), replace=False))
        changed = self.hidden[: len(self.hidden) // 2][:10]
        rows = np.concatenate([changed, BASE + np.arange(20 - len(changed))])
        if kind == "l2":
            index = l2(vectors)
        elif kind == "hnsw":
            plan = plan_of("hnsw", BASE, DIM)
            index = of_plan(plan, vectors, np.arange(BASE) % 3, 3, [Depth(BASE, 1, 1.0, 2 * BASE)])
        else:
            num_lists = 4 if kind == "ivf_flat" else 0
            index = sharded(vectors, np.arange(BASE) % 3, 3, num_lists, num_lists or 1)
        self.metric, self.num_rows = index.metric, int(rows.max()) + 1
        self.index = JoinedIndex(
            SelectiveIndex(index, BASE), BASE, Delta(1, self.hidden, rows, more, pa.table({"item": rows})), index.metric
        )
        self.vectors = np.zeros((self.num_rows, DIM), dtype=np.float32)
        self.vectors[:BASE], self.vectors[rows] = vectors, more
        self.present = np.ones(self.num_rows, dtype=np.bool_)
        self.present[np.setdiff1d(self.hidden, changed)] = False
        self.queries = unit_vectors(7, DIM, 200 + seed)
        self.generator = generator

    def truth(self, k: int, kept: npt.NDArray[np.bool_]) -> tuple[Any, Any]:
        ids = np.flatnonzero(self.present & kept)
        places, scores = exact(self.vectors[ids], self.queries, k, self.metric)
        return (np.where(places < 0, -1, ids[places]) if len(ids) else places), scores


@pytest.mark.parametrize("kind", ["flat", "ivf_flat", "l2", "hnsw"])
@pytest.mark.parametrize("seed", range(8))
def test_the_answer_is_that_of_an_index_that_was_built_with_the_delta(kind: str, seed: int) -> None:
    """On random vectors, of which some are replaced, some removed, and some are new; among all and among some."""
    case = Case(kind, seed)
    some = case.generator.random(case.num_rows) < 0.5
    for k in (1, 7, case.num_rows + 5):
        for kept, among in ((np.ones(case.num_rows, dtype=np.bool_), None), (some, case.index.selection(some))):
            expected, of_expected = case.truth(k, kept)
            found, scores = case.index.search(case.queries, np.full(7, k), among)
            np.testing.assert_allclose(scores, of_expected, atol=1e-5)
            np.testing.assert_array_equal(found, expected)


def test_each_query_gets_as_many_as_it_asks_for() -> None:
    case = Case("ivf_flat", 3)
    wanted = np.array([0, 1, 2, 3, 30, 4, 5])
    ids, scores = case.index.search(case.queries, wanted)
    assert ids.shape == scores.shape == (7, 30)
    assert (ids >= 0).sum(1).tolist() == wanted.tolist()
    for row, k in enumerate(wanted):
        alone = case.index.search(case.queries[row : row + 1], np.array([k]))[0]
        np.testing.assert_array_equal(ids[row, :k], alone[0])


def test_a_selection_has_the_rows_that_hold_and_those_that_came() -> None:
    case = Case("flat", 5)
    every = case.index.selection(np.ones(case.num_rows, dtype=np.bool_))
    np.testing.assert_array_equal(every.kept, case.present)
    none = case.index.selection(np.zeros(case.num_rows, dtype=np.bool_))
    assert none.count == 0
    assert (case.index.search(case.queries, np.full(7, 3), none)[0] == -1).all()


@pytest.mark.parametrize("kind", ["flat", "l2"])
def test_vectors_and_scores_are_those_of_the_newest_word(kind: str) -> None:
    case = Case(kind, 6)
    rows = case.generator.permutation(np.flatnonzero(case.present))
    np.testing.assert_array_equal(case.index.vectors(rows), case.vectors[rows])
    expected = score_all(case.queries, case.vectors[rows], case.metric)
    np.testing.assert_allclose(case.index.scores(case.queries, rows), expected, atol=1e-5)


def test_without_a_delta_the_index_answers_as_it_did() -> None:
    vectors, queries = unit_vectors(BASE, DIM), unit_vectors(5, DIM, 1)
    plain = SelectiveIndex(sharded(vectors, np.arange(BASE) % 3, 3, 4, 2), BASE)
    none = np.zeros(0, dtype=np.int64)
    empty = Delta(0, none, none, np.zeros((0, DIM), dtype=np.float32), pa.table({"item": none}))
    with_none = JoinedIndex(plain, BASE, empty, "inner_product")
    for found, right in zip(with_none.search(queries, np.full(5, 9)), plain.search(queries, 9), strict=True):
        np.testing.assert_array_equal(found, right)
    rows = np.array([3, 1])
    np.testing.assert_array_equal(with_none.vectors(rows), plain.vectors(rows))
    np.testing.assert_array_equal(with_none.scores(queries, rows), plain.scores(queries, rows))
