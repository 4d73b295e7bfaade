"""Item vectors from who met what: those of an exact factorisation, and training that begins with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from raycl import journey, lineage
from raycl.data import ray_pairs
from raycl.data.handoff import Pairs
from raycl.training import loop, sample, spectral, start
from raycl.training.job import Job
from raycl.training.prepare import prepare
from tests.data import whole
from tests.training.test_start import config_of

NUM_USERS, NUM_ROWS = 60, 40


def events() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Users of four tastes, two events twice, and a last row that nobody met."""
    generator = np.random.default_rng(3)
    user = np.repeat(np.arange(NUM_USERS), 8)
    row = (generator.integers(0, 10, len(user)) * 4 + user % 4) % (NUM_ROWS - 1)
    return np.append(user, user[:2]), np.append(row, row[:2])


def exact(dim: int) -> NDArray[np.float64]:
    user, row = events()
    met = np.zeros((NUM_USERS, NUM_ROWS))
    met[user, row] = 1.0
    scaled = met / np.sqrt(np.maximum(met.sum(1, keepdims=True), 1) * np.maximum(met.sum(0, keepdims=True), 1))
    return np.asarray(np.linalg.svd(scaled)[2][:dim].T)


def test_vectors_are_those_of_an_exact_factorisation() -> None:
    found = spectral.vectors(*events(), NUM_USERS, NUM_ROWS, 4, seed=1)
    wanted = exact(4)
    # Singular vectors are told up to a turn among equal ones: what lies near what is the same.
    scale = np.linalg.norm(wanted[:-1], axis=1).mean() ** 2
    np.testing.assert_allclose(found @ found.T, wanted @ wanted.T / scale, atol=1e-3)
    assert np.linalg.norm(found[:-1], axis=1).mean() == pytest.approx(1.0, abs=1e-5)
    assert not found[-1].any()


def test_the_seed_alone_decides() -> None:
    one, same, other = (spectral.vectors(*events(), NUM_USERS, NUM_ROWS, 4, seed) for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_a_table_of_few_users_fills_up_by_chance() -> None:
    found = spectral.vectors(np.array([0, 0, 1]), np.array([0, 1, 1]), 2, 3, 8, seed=1)
    assert found.shape == (3, 8)
    assert np.isfinite(found).all()
    assert (found[:2, 2:] != 0.0).all()


def begun(folder: Path, **sections: Any) -> tuple[Job, Pairs]:
    config = config_of(folder, **sections)
    workspace = journey.workspace(config)
    pairs, _ = ray_pairs.run(config, workspace)
    draft = workspace.draft("towers", lineage.digest(config, "towers", pairs.name))
    assert start.leave(workspace, config, pairs, draft) is None
    return prepare(config, Pairs.of(pairs), draft.store), Pairs.of(pairs)


@pytest.mark.parametrize(
    "sections",
    [{}, {"model": {"share_items": True}}, {"pairs": {"rare_items": "hash", "min_item_events": 9, "rare_buckets": 7}}],
    ids=["own events", "shared items", "rare items"],
)
def test_training_begins_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sections: dict[str, Any]) -> None:
    whole.without_ray(monkeypatch)
    job, pairs = begun(tmp_path, train={"item_start": "spectral"}, **sections)
    towers = loop.build(job)
    parts, row_of = sample.of(pairs), pairs.embedding_rows()
    sizes = np.concatenate([np.diff(part.offsets) for part in parts])
    user = np.repeat(np.arange(len(sizes)), sizes)
    item = np.concatenate([part.items for part in parts])
    row = item if row_of is None else row_of[item]
    num_rows = towers.spec.num_id_rows
    wanted = spectral.vectors(user, row, len(sizes), num_rows, towers.spec.model.dim, job.seed)
    met = np.unique(row)
    assert towers.item.ids is not None
    np.testing.assert_allclose(towers.item.ids.weight.detach()[met + 1], wanted[met], atol=1e-5)
    if towers.user.history is not None:
        torch.testing.assert_close(towers.user.history.weight[met + 1], towers.item.ids.weight[met + 1])
        assert not towers.user.history.weight[0].any()
    assert loop.fit(job, torch.device("cpu"), lambda _: None)[1].step == job.stream.steps


def test_without_it_nothing_is_left_to_begin_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole.without_ray(monkeypatch)
    job, _ = begun(tmp_path)
    assert job.start is None
