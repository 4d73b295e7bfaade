"""The tables of benchmarks: what a run writes, and what it keeps of the run before."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import results
from benchmarks.results import Row


def row(case: str, ratio: float, goal: float | None = 1.0) -> Row:
    return Row(case, "small", 2.0, 1.0, "pairs/s", ratio, goal, equal=True)


def test_a_goal_is_met_where_the_ratio_reaches_it_and_results_agree(tmp_path: Path) -> None:
    unequal = Row("c", "small", 2.0, 1.0, "pairs/s", 2.0, 1.0, equal=False)
    results.write("some", "Some", [row("a", 0.9), row("b", 1.0), unequal, row("d", 0.1, None)], "Notes.", tmp_path)
    found = json.loads((tmp_path / "some.json").read_text(encoding="utf-8"))
    assert [one["met"] for one in found["rows"]] == [False, True, False, None]
    assert "Notes." in (tmp_path / "some.md").read_text(encoding="utf-8")


def test_what_was_not_measured_again_stays_with_its_own_date(tmp_path: Path) -> None:
    results.write("some", "Some", [row("a", 0.5), row("b", 2.0)], "", tmp_path)
    path = tmp_path / "some.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"date": "', '"date": "before '), encoding="utf-8")
    results.write("some", "Some", [row("a", 3.0)], "", tmp_path, keep=True)
    found = json.loads(path.read_text(encoding="utf-8"))
    assert [(one["case"], one["ratio"]) for one in found["rows"]] == [("a", 3.0), ("b", 2.0)]
    assert found["rows"][1]["date"].startswith("before ")
    assert "b, small: measured before " in (tmp_path / "some.md").read_text(encoding="utf-8")
    results.write("some", "Some", [row("a", 3.0)], "", tmp_path)
    assert len(json.loads(path.read_text(encoding="utf-8"))["rows"]) == 1
