"""The recipes' benchmark: its cases are recipes that load, and its tables say what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.recipes import tables
from benchmarks.recipes.cases import ABLATED, ABLATED_ON, ABLATIONS, CASES, Case, Peer
from benchmarks.recipes.tables import MARKS, Measured
from raycl import config_file

ROOT = Path(__file__).resolve().parent.parent
FOUND = Measured(
    {
        "towers": {"recall_at_5": (0.2, 0.1, 0.3), "rmse": (0.9, 0.8, 1.0)},
        "item_knn": {"recall_at_5": (0.1, 0.05, 0.2)},
        "towers_lost": {"recall_at_5": (0.15, 0.1, 0.2)},
    },
    "10 users, 20 items",
    "full-catalogue",
    600.0,
)
CASE = Case(
    "shop", "a shop", "softmax", ("recall_at_5", "rmse"), (Peer("somebody", {"recall_at_5": 0.4, "rmse": 1.8}),)
)


@pytest.mark.parametrize("name", sorted(CASES))
def test_every_case_is_a_recipe_whose_config_holds_with_each_change(name: str) -> None:
    path = ROOT / "jobs" / "recipes" / f"{name}.yaml"
    for changed in [(), *CASES[name].variants.values()]:
        config = config_file.load(path, changed)
        lengths = {int(metric.rpartition("_")[2]) for metric in CASES[name].metrics if "_at_" in metric}
        assert lengths <= set(config.evaluation.ks)
        assert "rmse" not in CASES[name].metrics or config.loss.has("rating")


def test_every_ablation_is_a_config_that_holds_and_says_which_is_the_recipe() -> None:
    path = ROOT / "jobs" / "recipes" / f"{ABLATED}.yaml"
    for settings in ABLATIONS.values():
        for name, changed in settings.items():
            config_file.load(path, [*ABLATED_ON, *changed])
            assert (not changed) is name.endswith("(the recipe)")


def test_each_of_the_ten_kinds_of_systems_has_a_case() -> None:
    assert len({name.partition("-")[0] for name in CASES}) == 10


def test_a_recipe_is_compared_with_baselines_of_its_run_and_told_beside_what_others_report() -> None:
    found = {row.case + " " + row.unit: row for row in tables.rows(CASE, FOUND)}
    assert {name: (row.ratio, row.equal, row.met) for name, row in found.items()} == {
        "shop beside item_knn recall_at_5": (2.0, True, None),
        "shop beside somebody recall_at_5": (0.5, False, None),
        "shop beside somebody rmse": (2.0, False, None),
        "shop, from logs to a release s, at most": (2.0, True, True),
    }


def test_a_section_has_every_model_variant_and_peer_once() -> None:
    text = tables.section(CASE, FOUND, {"other words": FOUND})
    cells = [line.split("|")[1:3] for line in text.splitlines() if line.startswith("| ")]
    assert [[cell.strip() for cell in pair] for pair in cells] == [
        ["", "recall_at_5"],
        ["**the recipe**", "0.2000 (0.1000 to 0.3000)"],
        ["item_knn", "0.1000 (0.0500 to 0.2000)"],
        ["towers_lost", "0.1500 (0.1000 to 0.2000)"],
        ["other words", "0.2000 (0.1000 to 0.3000)"],
        ["somebody, as reported", "0.4000"],
    ]


def test_ablations_are_one_table() -> None:
    text = tables.ablations(("recall_at_5",), {"temperature": {"0.1": FOUND, "0.2": FOUND}})
    assert [line.count("|") for line in text.splitlines()] == [4] * 4
    assert "| temperature | 0.2 | 0.2000 (0.1000 to 0.3000) |" in text


def test_the_readme_keeps_lines_that_were_not_measured_anew() -> None:
    cases = [CASE, Case("films", "films", "bpr", ("recall_at_5",)), Case("songs", "songs", "bpr", ("recall_at_5",))]
    empty = f"before\n{MARKS[0]}\n\n{MARKS[1]}\nafter"
    first = tables.readme(empty, cases, {"films": "| films | measured |"})
    assert "| shop | a shop | softmax | not measured yet |" in first
    second = tables.readme(first, cases, {"shop": tables.line(CASE, FOUND)})
    assert "| films | measured |" in second
    assert "| shop | a shop | softmax | recall_at_5 0.2000 (0.1000 to 0.3000); rmse 0.9000" in second
    assert second.count("| songs |") == 1
    assert tables.readme(second, cases, {}) == second
    assert second.startswith("before\n")
    assert second.endswith("\nafter")


def test_a_readme_without_the_marks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"README\.md has no table between"):
        tables.readme("nothing", [CASE], {})


def test_the_table_of_the_readme_is_of_the_recipes_that_there_are() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert tables.readme(text, list(CASES.values()), {}) == text
    recipes = {path.stem for path in (ROOT / "jobs" / "recipes").glob("*.yaml")}
    assert set(CASES) <= recipes
