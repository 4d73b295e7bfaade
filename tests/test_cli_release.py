"""What ``raycl release`` says, and the code that it ends with; what it does is tested beside the code that does it."""

from __future__ import annotations

from pathlib import Path

import pytest

from raycl import config_file, journey, lineage
from raycl.config import Config
from raycl.index import release
from raycl.storage import pointer
from raycl.storage.pointer import Pointer
from tests import tiny as builders
from tests.command import Run, in_process, told


@pytest.fixture(scope="session")
def tiny(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The config of a tiny finished and published workspace; a test that changes files copies it first."""
    return builders.finished(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def two(tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Config]:
    """Two configs of one workspace, each with a release; only the first is published."""
    first = builders.copied(tiny, tmp_path_factory.mktemp("two"))
    return first, builders.retrained(first)


@pytest.fixture
def config(two: tuple[Config, Config], tmp_path: Path) -> Config:
    return builders.copied(two[0], tmp_path)


@pytest.fixture
def run(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """``raycl release VERB CONFIG ...`` in this process, which fails where it would start Ray."""
    file = tmp_path / "raycl.yaml"
    file.write_text(config_file.dump(config), encoding="utf-8")
    command = in_process(monkeypatch, capsys)
    return lambda verb, *words: command("release", verb, file, *words)


def names(two: tuple[Config, Config]) -> list[str]:
    return [lineage.release(one, journey.workspace(one)).name for one in two]


def test_releases_are_listed_promoted_and_rolled_back(run: Run, config: Config, two: tuple[Config, Config]) -> None:
    first, second = names(two)
    rows = told(run("list", "--json"))["releases"]
    assert [(row["release"], row["state"]) for row in rows] == [(second, "ready"), (first, "current")]
    assert told(run("promote", second, "--json")) == {"release": second, "number": 2}
    assert told(run("rollback", "--json")) == {"release": first, "number": 3}
    assert pointer.current(journey.workspace(config).store) == Pointer(3, first)
    code, out, _ = run("rollback", "--to", second)
    assert (code, out) == (0, f"release {second} is current, as publication 4\n")
    assert "current" in run("list")[1]


def test_a_release_is_shown_for_people_and_for_machines(run: Run, two: tuple[Config, Config]) -> None:
    shown = told(run("show", "--json"))
    assert shown["release"] == names(two)[0]
    code, out, _ = run("show", names(two)[1])
    assert code == 0
    for word in ("item_tower", "index recall@10", "shards/00000.faiss", "not current; published: never"):
        assert word in out


def test_a_damaged_release_ends_verify_with_1(run: Run, config: Config, two: tuple[Config, Config]) -> None:
    first, second = names(two)
    assert told(run("verify", "--all", "--json")) == {"problems": {second: "", first: ""}}
    journey.workspace(config).store.write(f"releases/{second}/{release.SEARCH_FILE}", b"{}")
    assert run("verify")[0] == 0
    code, _, err = run("verify", "--all")
    assert code == 1
    assert "1 of 2 releases cannot be served: " in err
    assert f"{second}/search.json has SHA-256" in err


def test_a_diff_is_told_in_tables_or_json(run: Run, two: tuple[Config, Config]) -> None:
    first, second = names(two)
    found = told(run("diff", first, second, "--json"))
    assert (found["before"], found["after"], found["num_in"]) == (first, second, 0)
    code, out, _ = run("diff", first, second)
    assert code == 0
    for word in ("train.learning_rate", "0.005", "index_recall", "agreement: 0."):
        assert word in out


def test_prune_says_what_it_would_remove_and_removes_it(run: Run, config: Config, two: tuple[Config, Config]) -> None:
    first, second = names(two)
    told(run("promote", second, "--json"))
    assert run("prune", "--keep", 1)[1].count("removed") == 0
    code, out, _ = run("prune", "--keep", 1, "--grace-s", 0, "--dry-run")
    assert (code, out.splitlines()[-1]) == (0, f"would remove {first}")
    assert told(run("prune", "--keep", 1, "--grace-s", 0, "--json"))["removed"] == [first]
    assert journey.workspace(config).finished("releases") == [second]
    assert run("promote", first)[0] == run("prune", "--keep", 0)[0] == 2
