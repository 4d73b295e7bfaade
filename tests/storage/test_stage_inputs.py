"""Every stage trusts the files that it reads only as the stage before left them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from raycl import journey, lineage
from raycl.config import Config
from raycl.errors import CorruptRelease
from raycl.journey import Outcome
from raycl.storage.versions import Version
from tests import tiny as builders

MADE = ("pairs", "towers", "evaluations", "releases")
STAGES: dict[str, Callable[[Config], Outcome]] = {
    "towers": lambda config: journey.train(config, lambda _: None),
    "evaluations": journey.evaluate,
    "releases": journey.index,
}
TOWERS = ("user.safetensors", "item.safetensors", "config.json")
READ = [
    *(("towers", "pairs", path) for path in ("sequences/part-000000.parquet", "sequences/part-000001.parquet")),
    *((stage, "pairs", path) for stage in ("evaluations", "releases") for path in ("sequences/part-000001.parquet",)),
    *((stage, "pairs", path) for stage in STAGES for path in ("vocab/items/part-00000.parquet", "vocab/features.json")),
    *((stage, "towers", path) for stage in ("evaluations", "releases") for path in TOWERS),
]


@pytest.fixture(scope="session")
def tiny(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A workspace with every stage done."""
    return builders.finished(tmp_path_factory.getbasetemp())


def before(tiny: Config, folder: Path, stage: str) -> Config:
    """A copy of the workspace in which this stage and those after it are still to be done."""
    config = builders.copied(tiny, folder)
    for later in MADE[MADE.index(stage) :]:
        shutil.rmtree(Path(config.workspace) / later)
    return config


def made(config: Config, stage: str) -> Version:
    finder = lineage.pairs if stage == "pairs" else lineage.towers
    return finder(config, journey.workspace(config))


def flipped(content: bytes) -> bytes:
    """A byte in the middle is another."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def cut_short(content: bytes) -> bytes:
    return content[: len(content) // 2]


@pytest.mark.parametrize("change", [flipped, cut_short])
@pytest.mark.parametrize(("stage", "input_stage", "path"), READ)
def test_a_stage_refuses_an_input_that_was_altered(
    tiny: Config, tmp_path: Path, stage: str, input_stage: str, path: str, change: Callable[[bytes], bytes]
) -> None:
    config = before(tiny, tmp_path, stage)
    store = made(config, input_stage).store
    store.write(path, change(store.read(path)))
    with pytest.raises(CorruptRelease, match=rf"^{store.uri}/{path} has .* its manifest says .* --force$"):
        STAGES[stage](config)
    assert journey.workspace(config).finished(stage) == []


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_refuses_an_input_that_is_gone_or_was_added(tiny: Config, tmp_path: Path, stage: str) -> None:
    config = before(tiny, tmp_path, stage)
    store = made(config, "pairs").store
    store.write("vocab/more.parquet", b"more")
    with pytest.raises(CorruptRelease, match=r"vocab/more\.parquet is not listed in its manifest"):
        STAGES[stage](config)
    store.delete("vocab/more.parquet")
    store.delete("sequences/part-000001.parquet")
    with pytest.raises(CorruptRelease, match=r"sequences/part-000001\.parquet is missing: build the version again"):
        STAGES[stage](config)


def test_workers_refuse_a_file_that_was_altered(tiny: Config, tmp_path: Path) -> None:
    """Each worker looks at its share of the files."""
    config = builders.changed(before(tiny, tmp_path, "towers"), "train", num_workers=2, max_failures=0)
    store = made(config, "pairs").store
    path = "sequences/part-000001.parquet"
    store.write(path, flipped(store.read(path)))
    with pytest.raises(CorruptRelease, match=rf"^{store.uri}/{path} has SHA-256 .* its manifest says .* --force$"):
        STAGES["towers"](config)


def test_the_towers_of_another_run_are_not_indexed(tiny: Config, tmp_path: Path) -> None:
    config = before(tiny, tmp_path, "evaluations")
    others = builders.changed(config, "train", learning_rate=0.005)
    journey.train(others, lambda _: None)
    journey.evaluate(config)
    ours, other = made(config, "towers").store, made(others, "towers").store
    whole = ours.read("item.safetensors")
    ours.write("item.safetensors", other.read("item.safetensors"))
    with pytest.raises(CorruptRelease, match=r"item\.safetensors has SHA-256 .* altered"):
        journey.index(config)
    ours.write("item.safetensors", whole)
    assert journey.index(config).worked
