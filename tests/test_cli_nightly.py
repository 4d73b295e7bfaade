"""What ``raycl nightly`` says on disk and on S3, and the code that it ends with, where every stage is finished."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raycl import config_file, journey, lineage, nightly
from raycl.config import Config
from raycl.storage import lease, pointer
from raycl.storage.lease import Owner
from raycl.storage.store import Store
from tests import tiny as builders
from tests.command import in_process
from tests.test_nightly import STAGES

Run = Callable[..., tuple[int, list[Any], str]]


@pytest.fixture(scope="session")
def tiny(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The config of a tiny finished and published workspace; a test that changes files copies it first."""
    return builders.finished(tmp_path_factory.getbasetemp())


@pytest.fixture(params=["local", "s3"])
def config(request: pytest.FixtureRequest, tiny: Config, tmp_path: Path) -> Config:
    """The config of a copy of that workspace."""
    if request.param == "local":
        return builders.copied(tiny, tmp_path)
    store: Store = request.getfixturevalue("s3_store")
    source = journey.workspace(tiny).store
    for path in source.files():
        store.write(path, source.read(path))
    return tiny.model_copy(update={"workspace": store.uri})


@pytest.fixture
def run(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """``raycl nightly`` with ``--json``, in this process, which fails where it would start Ray."""
    file = tmp_path / "raycl.yaml"
    file.write_text(config_file.dump(config), encoding="utf-8")
    command = in_process(monkeypatch, capsys)

    def night(*words: object) -> tuple[int, list[Any], str]:
        ended = command("nightly", file, *words, "--json")
        return ended.code, [json.loads(line) for line in ended.out.splitlines()], ended.err

    return night


def test_a_night_that_has_nothing_to_do_says_so_and_leaves_its_page_once(run: Run, config: Config) -> None:
    store, name = journey.workspace(config).store, lineage.release(config, journey.workspace(config)).name
    for _ in range(2):
        code, said, _ = run()
        assert code == 0
        assert [(one["stage"], one.get("worked")) for one in said[:-1]] == [(stage, False) for stage in STAGES]
        assert said[-1] == {"stage": "nightly", "page": f"{config.workspace}/{nightly.page_of(name)}"}
        assert store.read(nightly.page_of(name)).startswith(b"<!DOCTYPE html>")
    assert len(store.names(f"{nightly.FOLDER}/lease")) == 1


def test_a_plan_is_printed_and_nothing_is_written(run: Run, config: Config) -> None:
    files = journey.workspace(config).store.files()
    code, (said,), _ = run("--dry-run")
    assert code == 0
    assert [(step["stage"], step["would"]) for step in said["plan"]] == [
        ("lease", "work"),
        *((stage, "nothing") for stage in STAGES),
    ]
    code, (said,), _ = run("--dry-run", "--set", "model.dim=16")
    assert [step["would"] for step in said["plan"]] == ["work", "nothing", *["work"] * 4]
    assert journey.workspace(config).store.files() == files


def test_a_night_that_finds_another_one_ends_with_2_and_its_holder(run: Run, config: Config) -> None:
    folder = journey.workspace(config).store.under(nightly.FOLDER)
    held = lease.take(folder, "lease")
    held.release()
    path = f"lease/{held.number:06d}.json"
    plain = json.loads(folder.read(path))
    plain["owner"] |= {"host": "a-far-host", "machine": "another", "pid": 4711}
    folder.write(path, json.dumps(plain).encode())
    code, said, err = run()
    assert (code, said) == (2, [])
    assert "being made by process 4711 on host a-far-host" in " ".join(err.split())
    code, (told,), _ = run("--dry-run")
    assert (code, told["plan"][0]["would"]) == (0, "refuse")
    assert "a-far-host" in told["plan"][0]["reason"]
    plain["beat_s"] -= lease.STALE_S + 1
    folder.write(path, json.dumps(plain).encode())
    assert run()[0] == 0
    assert Owner.here().host in folder.read(f"lease/{held.number + 1:06d}.json").decode()


def test_a_release_that_was_rolled_back_is_not_published_by_the_next_night(run: Run, config: Config) -> None:
    store, name = journey.workspace(config).store, lineage.release(config, journey.workspace(config)).name
    pointer.publish(store, "another")
    code, said, err = run()
    assert (code, [one["stage"] for one in said]) == (3, STAGES[:-1])
    assert f"release {name} is not published: it was publication 1, and another took its place" in " ".join(err.split())
    assert pointer.current(store) == pointer.Pointer(2, "another")
    assert run("--dry-run")[1][0]["plan"][-1]["would"] == "refuse"
    pointer.publish(store, name)
    assert run()[0] == 0
