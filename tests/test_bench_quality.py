"""Rows and tables of ``make bench-quality``, from the facts that an evaluation leaves."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.quality import goals
from benchmarks.quality.goals import CASES, Case
from raycl import config_file
from tests.test_layout import ROOT

CASE = Case("toys", "Toys", {"recall_at_10": 0.2})
FACTS: dict[str, Any] = {
    "models": ["towers", "towers_dropped", "popularity"],
    "towers": {"recall_at_10": 0.3, "auc": 0.9},
    "towers_dropped": {"recall_at_10": 0.25},
    "popularity": {"recall_at_10": 0.1},
    "intervals": {
        "towers": {"recall_at_10": [0.29, 0.31]},
        "towers_dropped": {"recall_at_10": [0.24, 0.26]},
        "popularity": {"recall_at_10": [0.09, 0.11]},
    },
    "left_out": {"als": "implicit is not installed"},
}


def test_towers_stand_beside_the_goal_and_every_baseline() -> None:
    beside_goal, beside_peer = goals.rows(CASE, {model: FACTS[model] for model in FACTS["models"]}, "5 users, 3 items")
    assert (beside_goal.case, beside_goal.raycl, beside_goal.peer) == ("Toys, the goal", 0.3, 0.2)
    assert beside_goal.ratio == pytest.approx(1.5)
    assert (beside_peer.case, beside_peer.peer) == ("Toys beside popularity", 0.1)
    assert beside_peer.met is None


@pytest.mark.parametrize(("found", "met"), [(0.1999, False), (0.2, True)])
def test_a_goal_is_met_from_its_figure_on(found: float, met: bool) -> None:
    assert goals.rows(CASE, {"towers": {"recall_at_10": found}}, "")[0].met is met


def test_the_table_tells_intervals_and_what_was_left_out() -> None:
    lines = goals.table(CASE, FACTS).splitlines()
    assert lines[0] == "| Toys | recall_at_10 |"
    assert "| popularity | 0.1000 (0.0900 to 0.1100) |" in lines
    assert lines[-1] == "Left out: als, since implicit is not installed."


@pytest.mark.parametrize("case", CASES.values(), ids=str)
def test_each_recipe_measures_the_goals_of_its_case_on_the_test_part(case: Case) -> None:
    config = config_file.load(ROOT / "jobs" / "recipes" / f"{case.name}.yaml")
    assert config.evaluation.part == "test"
    assert {int(metric.rpartition("_")[2]) for metric in case.goals} <= set(config.evaluation.ks)
