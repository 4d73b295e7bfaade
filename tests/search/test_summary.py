"""The tables of a search: the best trial first, and how much each field mattered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raycl import config_file
from raycl.config_search import Space
from raycl.errors import RayclError
from raycl.search import summary
from raycl.search.board import Board
from raycl.search.trials import Trial
from raycl.storage.store import Store
from raycl.storage.versions import Draft, Workspace
from tests.test_config import tree

CONFIG = config_file.check(tree({}))


def draft(folder: Path) -> Draft:
    return Workspace(Store(str(folder))).draft("searches", "0" * 64)


def fold(value: float) -> dict[str, object]:
    return {"towers": f"towers of {value}", "value": value, "users": 40, "epoch": 2}


def test_the_best_finished_trial_is_first_whatever_one_that_was_given_up_had(tmp_path: Path) -> None:
    board = Board(draft(tmp_path))
    tried = [Trial(number, {"model.hidden": [number]}, (CONFIG,)) for number in range(5)]
    board.end(0, "finished", folds=[fold(0.1), fold(0.3)])
    board.note(1, 1, 0.9)
    board.end(1, "stopped", reason="below the others")
    board.end(2, "finished", folds=[fold(0.25), fold(0.35)])
    board.end(3, "failed", reason="the loss became nan")
    board.end(4, "finished", folds=[fold(0.3), fold(0.3)])
    table = summary.trials(board, tried)
    assert table["trial"].to_list() == [2, 4, 0, 1, 3]
    np.testing.assert_allclose(table["value"].to_list()[:4], [0.3, 0.3, 0.2, 0.9])
    np.testing.assert_allclose(table["deviation"].to_list()[:3], [0.1 / 2**0.5, 0.0, 0.2 / 2**0.5], atol=1e-12)
    assert table["model.hidden"].to_list() == ["[2]", "[4]", "[0]", "[1]", "[3]"]
    assert table["epochs"].to_list() == [0, 0, 0, 1, 0]
    assert table["towers"][0] == "towers of 0.25", "of the first fold, which is the config's own"
    assert summary.best(table) == 2


def test_a_search_in_which_nothing_finished_says_why(tmp_path: Path) -> None:
    board = Board(draft(tmp_path))
    board.end(0, "failed", reason="the loss became nan")
    with pytest.raises(RayclError, match="no trial of the search finished: the loss became nan"):
        summary.best(summary.trials(board, [Trial(0, {}, (CONFIG,))]))


def test_what_ended_is_there_after_a_kill_and_what_failed_is_tried_again(tmp_path: Path) -> None:
    before = Board(draft(tmp_path))
    before.note(0, 1, 0.1)
    before.note(0, 2, 0.2)
    before.note(2, 1, 0.05)
    before.end(0, "finished", folds=[fold(0.2)])
    before.end(1, "failed", reason="the loss became nan")
    after = Board.of(before.draft, 3)
    assert after.curves == before.curves == {0: {1: 0.1, 2: 0.2}, 2: {1: 0.05}}
    assert after.outcomes == {0: before.outcomes[0]}
    assert [after.value(number) for number in range(3)] == [0.2, None, 0.05]


def fields(
    tmp_path: Path, spaces: dict[str, Space], drawn: list[dict[str, object]], values: list[float]
) -> list[dict[str, Any]]:
    board = Board(draft(tmp_path))
    for number, value in enumerate(values):
        board.note(number, 1, value)
    tried = [Trial(number, one, (CONFIG,)) for number, one in enumerate(drawn)]
    return summary.fields(board, tried, spaces).rows(named=True)


def test_a_field_that_decides_has_the_whole_share_and_one_that_does_not_has_none(tmp_path: Path) -> None:
    drawn: list[dict[str, object]] = [
        {"dim": dim, "rate": rate} for dim in (8, 64) for rate in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    ]
    values = [0.1] * 6 + [0.4] * 6
    found = fields(tmp_path, {"rate": Space(uniform=(0.0, 1.0)), "dim": Space(choice=(64, 8))}, drawn, values)
    assert found[:2] == [
        {"field": "dim", "value": "8", "trials": 6, "mean": pytest.approx(0.1), "best": 0.1, "share": 1.0},
        {"field": "dim", "value": "64", "trials": 6, "mean": pytest.approx(0.4), "best": 0.4, "share": 1.0},
    ]
    assert [(row["field"], row["trials"]) for row in found[2:]] == [("rate", 3)] * 4
    assert found[2]["share"] < 0.2


def test_by_chance_alone_a_share_is_small_and_three_trials_have_none(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    shares = []
    for number in range(40):
        drawn: list[dict[str, object]] = [{"rate": float(rate)} for rate in generator.uniform(size=12)]
        found = fields(
            tmp_path / str(number), {"rate": Space(uniform=(0.0, 1.0))}, drawn, list(generator.normal(size=12))
        )
        shares.append(found[0]["share"])
    assert float(np.mean(shares)) < 0.2
    few: list[dict[str, object]] = [{"rate": rate} for rate in (0.1, 0.2, 0.3)]
    found = fields(tmp_path / "few", {"rate": Space(uniform=(0.0, 1.0))}, few, [0.1, 0.2, 0.3])
    assert [(row["value"], row["share"]) for row in found] == [("0.1 to 0.3", 0.0)]
