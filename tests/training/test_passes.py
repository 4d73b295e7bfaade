"""What goes through the towers: the rows of the batch and what is drawn besides, in any number of passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raycl.data.features import UNKNOWN
from raycl.data.reader import Batch
from raycl.training import exchange, passes
from raycl.training.passes import Passes
from tests.training.builders import NUM_ITEMS, job

CPU = torch.device("cpu")
CORRELATED = np.eye(3)
"""Of a bag, a number and the item itself."""


def batch_of(folder: Path) -> Batch:
    return next(job(folder).stream.epoch(0))


def made(folder: Path, correlated: Any = None, *, part: tuple[int, int] = (0, 1), **settings: Any) -> Passes:
    run = job(folder, **settings)
    return passes.of(run, correlated, next(run.stream.epoch(0)).part(*part), 3, CPU)


def test_a_plain_loss_sends_the_batch_alone(tmp_path: Path) -> None:
    found, batch = made(tmp_path), batch_of(tmp_path)
    assert found.history.tolist() == batch.history.tolist()
    assert found.user_rows.tolist() == batch.user_row.tolist()
    assert found.items.tolist() == batch.item.tolist()
    assert found.weights.tolist() == batch.weight.tolist()
    assert (found.item_runs, len(found.uniform)) == ([16, 0, 0], 0)


def test_views_are_of_the_same_users(tmp_path: Path) -> None:
    found, batch = made(tmp_path, loss={"terms": ["softmax", "views"]}), batch_of(tmp_path)
    assert found.user_rows.tolist() == batch.user_row.tolist() * 3
    plain, *views = torch.split(found.history, 16)
    assert plain.tolist() == found.batch_history.tolist() == batch.history.tolist()
    assert not torch.equal(views[0], views[1])
    for view in views:
        assert not torch.equal(view, plain)
        for changed, row in zip(view.tolist(), plain.tolist(), strict=True):
            assert set(changed) <= {*row, -1}


def test_a_share_of_a_history_is_hidden_and_the_whole_is_known_still(tmp_path: Path) -> None:
    batch = batch_of(tmp_path)
    found = made(tmp_path, loss={"terms": ["softmax", "views"]}, model={"history_dropout": 0.5})
    read, *views = torch.split(found.history, 16)
    whole = torch.from_numpy(batch.history)
    assert found.batch_history.tolist() == whole.tolist()
    hidden = read != whole
    assert (read[hidden] == -1).all()
    assert 0.2 < float(hidden.sum() / (whole >= 0).sum()) < 0.8
    plain = made(tmp_path, loss={"terms": ["softmax", "views"]})
    assert [view.tolist() for view in views] == [view.tolist() for view in torch.split(plain.history, 16)[1:]]


def test_items_with_hidden_features_follow_in_two_halves(tmp_path: Path) -> None:
    found, batch = (
        made(tmp_path, CORRELATED, model={"id_dropout": 0.0}, loss={"negatives": {"uniform": 5}}),
        batch_of(tmp_path),
    )
    assert found.item_runs == [16, 5, 0, 16, 16]
    own, drawn, _, first, second = torch.split(found.items, found.item_runs)
    assert own.tolist() == first.tolist() == second.tolist() == batch.item.tolist()
    assert drawn.tolist() == found.uniform.tolist()
    assert found.hidden_features is not None
    flags = torch.split(torch.cat([found.hidden_features, found.hidden[:, None]], dim=1), found.item_runs)
    assert not flags[0].any()
    assert not flags[1].any()
    assert (flags[3] ^ flags[4]).all()
    assert flags[3].sum(1).tolist() == [1] * 16


def test_what_is_hidden_does_not_reach_the_item_tower(tmp_path: Path) -> None:
    run = job(tmp_path, model={"id_dropout": 0.0})
    found = passes.of(run, CORRELATED, next(run.stream.epoch(0)), 3, CPU)
    everything = (slice(None), slice(None))
    _, _, items, features, hidden, _, _ = found.inputs_of(run.inputs, *everything)
    assert items.tolist() == found.items.tolist()
    assert hidden.tolist() == found.hidden.tolist()
    assert found.hidden_features is not None
    assert (features.tokens[0][found.hidden_features[:, 0], 0] == UNKNOWN).all()
    assert not features.tokens[0][found.hidden_features[:, 0], 1:].any()
    assert features.numbers[found.hidden_features[:, 1]].isnan().all()
    plain = run.inputs.items.take(items)
    shown = ~found.hidden_features
    assert torch.equal(features.tokens[0][shown[:, 0]], plain.tokens[0][shown[:, 0]])
    assert torch.equal(features.numbers[shown[:, 1]], plain.numbers[shown[:, 1]])


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("uniform", [1, 2, 7, 8])
def test_processes_share_what_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world_size: int, uniform: int
) -> None:
    alone = made(tmp_path, loss={"negatives": {"uniform": uniform}})
    monkeypatch.setattr(exchange, "world_size", lambda: world_size)
    shares = []
    for rank in range(world_size):
        monkeypatch.setattr(exchange, "rank", lambda rank=rank: rank)
        found = made(tmp_path, part=(rank, world_size), loss={"negatives": {"uniform": uniform}})
        shares.append(torch.split(found.items, found.item_runs)[1])
        assert found.uniform.tolist() == alone.uniform.tolist()
    assert len({len(share) for share in shares}) == 1
    assert torch.cat(shares)[:uniform].tolist() == alone.uniform.tolist()
    assert alone.uniform.max() < NUM_ITEMS


@settings(deadline=None, max_examples=100, derandomize=True)
@given(st.integers(1, 30), st.integers(0, 60), st.integers(1, 40))
def test_passes_hold_no_more_than_they_may_and_miss_no_row(users: int, more: int, rows: int) -> None:
    nothing = torch.zeros(0)
    found = Passes(users, nothing, nothing, torch.zeros(users), torch.zeros(users + more), nothing, None, nothing)
    chunks = found.chunks(rows)
    for side, size in ((0, users), (1, users + more)):
        edges = [(chunk[side].start, chunk[side].stop) for chunk in chunks]
        assert [stop for _, stop in edges[:-1]] == [start for start, _ in edges[1:]]
        assert (edges[0][0], edges[-1][1]) == (0, size)
        assert max(stop - start for start, stop in edges) <= rows
    assert found.chunks(None) == [(slice(0, users), slice(0, users + more))]


def test_the_rows_of_a_pass_are_those_of_the_whole(tmp_path: Path) -> None:
    loss = {"terms": ["softmax", "views", "masked_features"], "negatives": {"uniform": 5}}
    run = job(tmp_path, loss=loss, model={"pooling": "transformer"}, with_context=True)
    found = passes.of(run, CORRELATED, next(run.stream.epoch(0)), 3, CPU)
    history, users, items, features, hidden, age_s, context = found.inputs_of(run.inputs, *found.chunks(None)[0])
    assert age_s is not None
    assert context is not None
    parts = [found.inputs_of(run.inputs, *chunk) for chunk in found.chunks(7)]
    assert len(parts) == 8
    assert torch.equal(torch.cat([part[0] for part in parts]), history)
    assert torch.equal(torch.cat([part[2] for part in parts]), items)
    assert torch.equal(torch.cat([part[4] for part in parts]), hidden)
    assert torch.cat([ages for part in parts if (ages := part[5]) is not None]).allclose(age_s, equal_nan=True)
    said = [request for part in parts if (request := part[6]) is not None]
    for made_of, whole in (([p[1] for p in parts], users), ([p[3] for p in parts], features), (said, context)):
        assert torch.cat([rows.numbers for rows in made_of]).allclose(whole.numbers, equal_nan=True)
        assert torch.equal(torch.cat([rows.tokens[0] for rows in made_of]), whole.tokens[0])


def test_views_are_drawn_over_the_whole_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loss = {"terms": ["softmax", "views"]}
    alone, whole = made(tmp_path, loss=loss), torch.from_numpy(batch_of(tmp_path).history)
    monkeypatch.setattr(exchange, "world_size", lambda: 2)
    monkeypatch.setattr(exchange, "rank", lambda: 1)
    monkeypatch.setattr(exchange, "gather", lambda _: whole)
    second = made(tmp_path, part=(1, 2), loss=loss)
    for mine, everyone in zip(torch.split(second.history, 8), torch.split(alone.history, 16), strict=True):
        assert torch.equal(mine, everyone[8:])
