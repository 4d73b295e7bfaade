"""What users turned down: which rows of a batch are compared with it, and what that teaches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from raycl.training import exchange, loop, passes, private, step
from tests.training import workers
from tests.training.builders import job

CPU = torch.device("cpu")
EXPLICIT: dict[str, Any] = {"negatives": {"explicit": True}}


def test_each_row_has_what_the_reader_says_that_its_user_turned_down(tmp_path: Path) -> None:
    run = job(tmp_path, loss=EXPLICIT)
    batch = next(run.stream.epoch(0))
    found = private.items(run, batch, 0)
    assert found is not None
    assert batch.negatives is not None
    assert found.tolist() == batch.negatives.tolist()
    rows = passes.of(run, None, batch, 0, CPU)
    assert rows.item_runs == [16, 0, 48]
    apart = rows.items[16:].view(16, 3).tolist()
    own = [
        [int(item) if item >= 0 else int(target) for item in row] for row, target in zip(found, batch.item, strict=True)
    ]
    assert apart == own
    assert (found < 0).any()


def test_nothing_is_private_without_the_setting(tmp_path: Path) -> None:
    run = job(tmp_path)
    batch = next(run.stream.epoch(0))
    assert batch.negatives is None
    assert private.items(run, batch, 0) is None


def test_a_process_sends_no_more_than_what_is_private_to_its_own_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = job(tmp_path, loss=EXPLICIT)
    batch = next(run.stream.epoch(0))
    alone = passes.of(run, None, batch, 0, CPU)
    assert alone.private is not None
    monkeypatch.setattr(exchange, "world_size", lambda: 2)
    for rank in (0, 1):
        monkeypatch.setattr(exchange, "rank", lambda rank=rank: rank)
        mine = passes.of(run, None, batch.part(rank, 2), 0, CPU)
        assert mine.private is not None
        assert mine.private.tolist() == alone.private[8 * rank : 8 * rank + 8].tolist()


@pytest.mark.parametrize("kind", workers.CONTRASTING)
def test_users_move_away_from_what_they_turned_down(tmp_path: Path, kind: str) -> None:
    """Further than they do where training does not know of it."""
    scores = {}
    for explicit in (True, False):
        loss = {"terms": kind, "negatives": {"explicit": explicit}}
        run = job(tmp_path, loss=loss, model={"id_dropout": 0.0})
        told = job(tmp_path, loss={"terms": kind} | EXPLICIT)
        one = step.learner(run, loop.build(run), CPU)
        batch = next(run.stream.epoch(0))
        turned_down = passes.of(told, None, next(told.stream.epoch(0)), 0, CPU)
        for number in range(30):
            step.take(one, batch, number, 0.02)
        with torch.no_grad():
            vectors = one.towers.user(turned_down.history, one.inputs.users.take(turned_down.user_rows))
            items = turned_down.items[16:]
            apart = one.towers.item(items, one.inputs.items.take(items)).view(16, 3, -1)
        assert turned_down.private is not None
        usable = (turned_down.private >= 0) & (turned_down.private != turned_down.batch_items[:, None])
        scores[explicit] = float((apart @ vectors[:, :, None]).squeeze(2)[usable].mean())
    assert scores[True] < scores[False] - 0.02
