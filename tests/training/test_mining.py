"""Hard negatives mined from towers before: against loops over all items, and drawn for the rows of a batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from raycl.config_loss import Mined
from raycl.storage.store import Store
from raycl.storage.versions import Workspace
from raycl.training import exchange, mining, objective, passes, private
from tests.training.builders import NUM_ITEMS, POOLS, job

CPU = torch.device("cpu")
NUM, DIM = 700, 5


def vectors(seed: int = 0) -> mining.Vectors:
    found = np.random.default_rng(seed).normal(size=(NUM, DIM)).astype(np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    found[7] = np.nan
    found[11] = found[12]
    return found


def allowed(held: mining.Vectors, row: int, among: list[int], how: Mined) -> set[int]:
    """What may be mined for an item, one candidate at a time."""
    if np.isnan(held[row]).any():
        return set()
    scores = {other: float(held[row] @ held[other]) for other in among if other != row}
    ranked = sorted(scores, key=lambda other: -scores[other])[how.range_min : how.range_max]
    return {other for other in ranked if scores[other] <= how.max_share}


@pytest.mark.parametrize("pool", [3, 40])
@pytest.mark.parametrize("num_among", [20, 500])
def test_what_is_mined_is_in_the_ranks_and_under_the_share(pool: int, num_among: int) -> None:
    held, how = vectors(), Mined(pool=pool, range_min=4, range_max=60, max_share=0.9)
    among = np.sort(np.random.default_rng(1).choice(np.delete(np.arange(NUM), 7), num_among, replace=False))
    found = mining.mine(held, np.arange(NUM), among, how, np.random.default_rng(2))
    assert found.shape == (NUM, pool)
    for row, mined in enumerate(found.tolist()):
        expected = allowed(held, row, among.tolist(), how)
        kept = [item for item in mined if item >= 0]
        assert mined == kept + [-1] * (pool - len(kept))
        assert len(set(kept)) == len(kept) == min(pool, len(expected))
        assert set(kept) <= expected
    assert (found[7] == -1).all()


def test_an_item_is_no_negative_of_itself_or_of_its_double() -> None:
    how = Mined(pool=50, range_min=0, range_max=50, max_share=0.999)
    found = mining.mine(vectors(), np.array([11, 12]), np.arange(8, 60), how, np.random.default_rng(0))
    assert not {11, 12} & set(found.flatten().tolist())


def test_what_is_drawn_differs_by_chance_alone() -> None:
    how = Mined(pool=2, range_min=0, range_max=10, max_share=1.0)
    rows, among = np.zeros(2_000, dtype=np.int64), np.arange(1, 200)[np.isfinite(vectors()[1:200]).all(axis=1)]
    found = mining.mine(vectors(), rows, among, how, np.random.default_rng(0))
    counts = np.unique(found, return_counts=True)[1]
    assert len(counts) == 10
    assert counts.min() > 330
    assert counts.max() < 470


def test_candidates_have_a_vector_and_may_be_retrieved(monkeypatch: pytest.MonkeyPatch) -> None:
    retired = np.zeros(NUM, dtype=np.bool_)
    retired[[3, 9]] = True
    every = np.setdiff1d(np.arange(NUM), [3, 7, 9])
    assert mining.candidates(vectors(), retired, 0).tolist() == every.tolist()
    monkeypatch.setattr(mining, "_CANDIDATES", 100)
    some = mining.candidates(vectors(), retired, 0)
    assert len(set(some.tolist())) == 100
    assert set(some.tolist()) <= set(every.tolist())
    assert some.tolist() == sorted(some.tolist()) == mining.candidates(vectors(), retired, 0).tolist()
    assert some.tolist() != mining.candidates(vectors(), retired, 1).tolist()


def test_tasks_leave_what_one_call_finds_and_do_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mining, "BLOCK", 300)
    draft = Workspace(Store(str(tmp_path))).draft("towers", "0123456789abcdef")
    assert mining.load(draft.store) is None
    how, among = Mined(pool=2, range_min=1, range_max=20), np.delete(np.arange(NUM), 7)
    records = [mining.mine_block(draft, block, vectors(), among, how, 5) for block in range(mining.num_blocks(NUM))]
    expected = [
        mining.mine(
            vectors(), np.arange(first, min(first + 300, NUM)), among, how, np.random.default_rng([5, 4, block])
        )
        for block, first in enumerate((0, 300, 600))
    ]
    found = mining.load(draft.store)
    assert found is not None
    assert found.tolist() == np.concatenate(expected).tolist()
    assert sum(record["items"] for record in records) == NUM - 1
    assert mining.mine_block(draft, 1, vectors(1), among, how, 6) == records[1]
    again = mining.load(draft.store)
    assert again is not None
    assert again.tolist() == found.tolist()


def test_a_row_is_compared_with_some_of_its_targets_pool_and_with_nothing_it_met(tmp_path: Path) -> None:
    run = job(tmp_path, loss={"negatives": {"mined": {"per_pair": 3}}})
    seen: dict[int, set[int]] = {item: set() for item in range(NUM_ITEMS)}
    for epoch in range(8):
        for number, batch in enumerate(run.stream.epoch(epoch)):
            found = private.items(run, batch, number + 10 * epoch)
            assert found is not None
            assert found.shape == (16, 3)
            for target, history, mined in zip(batch.item.tolist(), batch.history.tolist(), found.tolist(), strict=True):
                pool = [item for item in POOLS[target].tolist() if item >= 0]
                kept = [item for item in mined if item >= 0]
                assert len(set(kept)) == len(kept)
                assert set(kept) <= set(pool) - set(history)
                assert len(kept) >= min(3, len(pool)) - len(set(history) & set(pool))
                seen[target] |= set(kept)
    assert seen[0] == set()
    assert max(len(items) for items in seen.values()) == 5


def test_processes_draw_what_one_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = job(tmp_path, loss={"negatives": {"mined": {"per_pair": 2}}})
    batch = next(run.stream.epoch(0))
    alone = private.items(run, batch, 3)
    assert alone is not None
    monkeypatch.setattr(exchange, "world_size", lambda: 4)
    for rank in range(4):
        monkeypatch.setattr(exchange, "rank", lambda rank=rank: rank)
        mine = private.items(run, batch.part(rank, 4), 3)
        assert mine is not None
        assert mine.tolist() == alone[4 * rank : 4 * rank + 4].tolist()


def test_mined_negatives_follow_explicit_ones_as_columns_of_their_row(tmp_path: Path) -> None:
    run = job(tmp_path, loss={"negatives": {"mined": {"per_pair": 2}, "explicit": True}})
    batch = next(run.stream.epoch(0))
    rows = passes.of(run, None, batch, 0, CPU)
    assert rows.private is not None
    assert batch.negatives is not None
    assert rows.private[:, :3].tolist() == batch.negatives.tolist()
    one = objective.build(run)
    users, items = (torch.nn.functional.normalize(torch.randn(n, 8), dim=1) for n in (16, len(rows.items)))
    split = torch.split(items, rows.item_runs)
    found = one._candidates(
        users, split[0], split[1], split[2], torch.arange(16), rows, lambda: rows.batch_items, run.inputs, 0
    )
    assert found.negative.shape == (16, 16 + 5)
    assert found.negative[:, 19:].tolist() == (rows.private[:, 3:] >= 0).tolist()
    assert found.private is not None
    assert torch.equal(found.private.reshape(-1, 8), split[2])
