"""What ``raycl delta`` says, and the code that it ends with; what it does is tested beside the code that does it."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from raycl import config_file, journey, lineage
from raycl.config import Config
from raycl.index import deltas
from tests import tiny as builders
from tests.command import Run, in_process, told
from tests.index.handed import rows

FIRST = builders.FIRST_ITEM


@pytest.fixture(scope="session")
def tiny(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The config of a tiny finished and published workspace; a test that changes files copies it first."""
    return builders.finished(tmp_path_factory.getbasetemp())


@pytest.fixture
def config(tiny: Config, tmp_path: Path) -> Config:
    return builders.copied(tiny, tmp_path)


@pytest.fixture
def run(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """``raycl delta VERB CONFIG ...`` in this process, which fails where it would start Ray."""
    file = tmp_path / "raycl.yaml"
    file.write_text(config_file.dump(config), encoding="utf-8")
    command = in_process(monkeypatch, capsys)
    return lambda verb, *words: command("delta", verb, file, *words)


def test_items_are_handed_in_listed_and_taken_back(run: Run, config: Config, tmp_path: Path) -> None:
    name = lineage.release(config, journey.workspace(config)).name
    table = tmp_path / "changed.parquet"
    pq.write_table(rows(900, FIRST), table)
    said = {"release": name, "number": 0, "new": 1, "changed": 1, "removed": 1, "unknown": 1}
    assert told(run("add", table, "--remove", "102,777", "--dry-run", "--json")) == said | {"dry_run": True}
    assert run("list")[1] == f"nothing was handed in to release {name}: see 'raycl delta add'\n"
    code, out, _ = run("add", table, "--remove", "102, 777")
    assert (code, out) == (
        0,
        f"1 new, 1 changed and 1 removed items joined release {name} as 1 (1 to remove that it did not answer with)\n",
    )
    assert told(run("add", "--remove", "900", "--release", name, "--json"))["number"] == 2
    listed = told(run("list", "--json"))
    assert listed["release"] == name
    assert [(row["number"], row["items"], row["removed"]) for row in listed["hand_ins"]] == [(1, 2, 2), (2, 0, 1)]
    assert run("withdraw", 1)[1] == f"hand-in 1 to release {name} is taken back, as 3\n"
    assert told(run("withdraw", 2, "--json")) == {"release": name, "number": 4, "withdraws": 2}
    assert "taken back" in run("list")[1]


def test_a_dry_run_says_that_nothing_was_done(run: Run, config: Config) -> None:
    name = lineage.release(config, journey.workspace(config)).name
    out = run("add", "--remove", FIRST, "--dry-run")[1]
    assert out == f"0 new, 0 changed and 1 removed items would join release {name}\n"
    assert deltas.numbers(journey.workspace(config).store, name) == []


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["add"], "nothing is handed in: give a table of items, --remove or --remove-from"),
        (["add", "--remove", "1", "--release", "other"], "--release other is not current"),
        (["add", "--remove", "tea"], "removed holds"),
        (["withdraw", "7"], "has no hand-in 7 to take back; it has none"),
    ],
)
def test_what_cannot_be_done_ends_with_2_and_one_line(run: Run, words: list[str], problem: str) -> None:
    code, _, err = run(*words)
    assert code == 2
    assert problem in err.replace("\n", " ")
    assert "Traceback" not in err
