"""A benchmark of some recipes leaves the figures of the others where they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import recipe_runs, results
from benchmarks.results import Row

TITLES = ("movies", "movies-100k", "music", "What single settings are worth")


def row(title: str, ratio: float, size: str = "5 users") -> Row:
    return Row(f"{title} beside popularity", size, ratio, 1.0, "recall_at_5", ratio, None, equal=True)


def leave(folder: Path, *rows: Row, **told: str) -> None:
    texts = {title.replace("_", "-"): f"## {title.replace('_', '-')}\n\n{text}" for title, text in told.items()}
    recipe_runs.page("recipes", "Recipes", list(rows), texts, TITLES, "The intro.", folder)


def test_rows_and_sections_of_recipes_that_were_not_measured_stay(tmp_path: Path) -> None:
    leave(
        tmp_path, row("movies", 1.0), row("movies-100k", 2.0), row("music", 3.0), movies="a", movies_100k="b", music="c"
    )
    leave(tmp_path, row("movies", 4.0, "9 users"), movies="anew\n\n| a | table |")
    found = json.loads((tmp_path / "recipes.json").read_text(encoding="utf-8"))
    assert [(one["case"].partition(" ")[0], one["ratio"]) for one in found["rows"]] == [
        ("movies", 4.0),
        ("movies-100k", 2.0),
        ("music", 3.0),
    ]
    page = (tmp_path / "recipes.md").read_text(encoding="utf-8")
    texts = recipe_runs.sections(page)
    assert [name for name in texts if name in TITLES] == ["movies", "movies-100k", "music"]
    assert texts["movies"] == "## movies\n\nanew\n\n| a | table |"
    assert texts["music"] == "## music\n\nc"
    assert page.count("The intro.") == page.count("## What was tried") == 1
    assert page.count(": measured ") == 1  # both that stay are of one run


def test_what_is_no_recipe_any_more_goes(tmp_path: Path) -> None:
    leave(tmp_path, row("music", 3.0), row("old", 1.0), music="c", old="d")
    leave(tmp_path, row("movies", 1.0), movies="a")
    found = json.loads((tmp_path / "recipes.json").read_text(encoding="utf-8"))
    assert [one["case"].partition(" ")[0] for one in found["rows"]] == ["movies", "music"]
    assert "## old" not in (tmp_path / "recipes.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["quality", "recipes"])
def test_the_pages_in_the_repository_have_a_section_for_what_their_rows_are_of(name: str) -> None:
    rows = json.loads((results.FOLDER / f"{name}.json").read_text(encoding="utf-8"))["rows"]
    titles = {one["case"].partition(" beside ")[0].partition(",")[0] for one in rows}
    assert titles <= set(recipe_runs.sections((results.FOLDER / f"{name}.md").read_text(encoding="utf-8")))


def test_settings_are_chosen_on_the_validation_part_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        recipe_runs.parse(recipe_runs.parser("quality", "", TITLES), ["--set", "train.epochs=1"])
    assert "--set is for choosing settings, which is done with --part val" in capsys.readouterr().err
