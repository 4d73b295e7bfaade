"""The whole journey in processes of its own, as a user runs it: on a synthetic log, on S3, and on MovieLens."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from raycl import config_file, console, journey, lineage, ports
from raycl.config import Config
from raycl.index import release
from raycl.storage import pointer
from raycl.storage.store import Store
from tests import tiny as builders
from tests.cluster import processes
from tests.index.builders import unit_vectors

ROOT = Path(__file__).resolve().parent.parent
STAGES = ["pairs", "train", "evaluate", "index", "publish"]
MOVIES = ROOT / "jobs" / "recipes" / "movies.yaml"


def raycl(scratch: Path, *arguments: object, within_s: float = 240) -> str:
    """Standard output of a command that must end well, and within the time."""
    command = [sys.executable, "-m", "raycl", *map(str, arguments)]
    env = processes.as_a_user(scratch)
    try:
        ended = subprocess.run(
            command, env=env, cwd=ROOT, capture_output=True, timeout=within_s, check=False, text=True
        )
    except subprocess.TimeoutExpired as error:
        pytest.fail(f"{error}\n{(error.stdout or b'').decode()}\n{(error.stderr or b'').decode()}")
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def stages(output: str) -> dict[str, dict[str, Any]]:
    """What ``--json`` said, by stage."""
    told = [json.loads(line) for line in output.splitlines()]
    assert [one["stage"] for one in told] == STAGES
    return {one["stage"]: one for one in told}


def told_of(config: Config) -> dict[str, dict[str, Any]]:
    """What the stages of a finished workspace say of themselves."""
    outcomes: list[journey.Outcome] = []
    journey.run(config, lambda _: None, outcomes.append)
    return {one.stage: console.summary(one) for one in outcomes}


def test_the_demo_comes_near_the_best_attainable_recall_and_answers_with_titles(scratch: Path, tmp_path: Path) -> None:
    said = raycl(scratch, "demo", "--rows", 60_000, "--workspace", tmp_path / "demo")
    closing = json.loads(said.splitlines()[-1])
    truth = json.loads((tmp_path / "demo" / "log" / "truth.json").read_text())
    assert list(closing) == [
        *("rows_in", "rows_dropped", "pairs", "recall_at_20", "popularity_recall_at_20", "index_recall", "answers"),
        "seconds",
    ]
    assert closing["rows_in"] == truth["num_rows"] == 60_000
    assert closing["rows_dropped"] == sum(truth["bad_rows"].values()) > 0
    assert closing["pairs"] > 40_000
    assert closing["recall_at_20"] > 3 * closing["popularity_recall_at_20"] > 0
    assert 0.5 * truth["oracle_recall_at_20"] < closing["recall_at_20"] <= truth["oracle_recall_at_20"]
    assert closing["index_recall"] >= 0.99
    assert closing["answers"] == 3
    for reason, count in truth["bad_rows"].items():
        assert re.search(rf"\b{reason}\b.*\b{count:,}\b", said), reason
    titles = set(builders.titles(tmp_path / "demo" / "log" / "items"))
    shown = [line for line in said.splitlines() if any(title in line for title in titles)]
    assert len(shown) == 15


def test_a_workspace_on_s3_holds_what_a_local_one_holds(
    ray_local: None, s3_store: Store, scratch: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The log and the workspace are in a bucket; the same config, run on this machine's disk, is the truth."""
    local = builders.finished(tmp_path_factory.getbasetemp())
    folder = Path(local.workspace).parent
    for path in sorted((folder / "log").iterdir()):
        s3_store.write(f"log/{path.name}", path.read_bytes())
    away = written(tmp_path / "s3.yaml", moved(builders.tiny_tree(folder), str(folder), s3_store.uri))

    expected, found = told_of(local), stages(raycl(scratch, "run", away, "--json"))
    for stage in STAGES:
        assert found[stage]["uri"].startswith(f"{s3_store.uri}/workspace/")
        assert found[stage]["counts"] == expected[stage]["counts"]
        assert found[stage]["dropped"] == expected[stage]["dropped"]
    assert found["train"]["facts"]["losses"] == expected["train"]["facts"]["losses"]
    for told in (found, expected):  # the protocol names the pairs, whose fingerprint has their place in it
        del told["evaluate"]["facts"]["protocol"]
    assert found["evaluate"]["facts"] == expected["evaluate"]["facts"]

    queries = unit_vectors(20, 8)
    answers = [current(config).index.search(queries, 10) for config in (local, config_file.load(away))]
    np.testing.assert_array_equal(answers[0][0], answers[1][0])
    np.testing.assert_array_equal(answers[0][1], answers[1][1])

    again = stages(raycl(scratch, "run", away, "--json"))
    assert {stage: (one["version"], one["worked"]) for stage, one in again.items()} == {
        stage: (one["version"], False) for stage, one in found.items()
    }


@pytest.mark.long
@pytest.mark.requires_shared_data
def test_the_movies_recipe_reports_the_given_split_and_answers_with_titles(
    movielens: Path, scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shorter than the recipe, by epochs; the split has one test event a user, so recall and hit rate are one."""
    monkeypatch.setenv("RAYCL_DATA", str(movielens.parent))
    monkeypatch.setenv("RAYCL_WORKSPACE", str(tmp_path))
    (port,) = ports.free(1)
    short = (MOVIES, "--set", "train.epochs=2", "--set", f"serving.port={port}")
    *lines, answers = raycl(scratch, "run", *short, "--json", within_s=900).splitlines()
    told, answered = stages("\n".join(lines)), json.loads(answers)["users"]
    assert [len(one["items"]) for one in answered] == [5, 5, 5]
    assert all(item["because"] and item["nearest"] for one in answered for item in one["items"])
    towers, popularity = told["evaluate"]["facts"]["towers"], told["evaluate"]["facts"]["popularity"]
    assert told["evaluate"]["counts"]["users"] == 6040
    assert towers["hit_rate_at_10"] == towers["recall_at_10"] > 1.5 * popularity["hit_rate_at_10"]
    assert towers["ndcg_at_10"] > 1.5 * popularity["ndcg_at_10"]

    service = [sys.executable, "-m", "raycl", "serve", *map(str, short)]
    leader = processes.start(service, {**processes.as_a_user(scratch), "PWD": str(ROOT)}, tmp_path / "serve.log")
    try:
        wait_until_it_answers(f"http://127.0.0.1:{port}/healthz", tmp_path / "serve.log")
        for who in (("--user", "1"), ("--history", "1,2,3")):
            answer = json.loads(raycl(scratch, "query", *short, *who, "--json"))
            titles = [item["title"] for item in answer["items"]]
            assert len(titles) == 10
            assert set(titles) <= set(builders.titles(movielens / "items.parquet"))
    finally:
        processes.kill(leader)


def written(path: Path, tree: dict[str, Any]) -> Path:
    """A config file of ``tree``, for an embedded Ray of two CPUs."""
    tree["ray"] = {"num_cpus": 2, "object_store_bytes": 100_000_000}
    path.write_text(config_file.dump(config_file.check(tree)), encoding="utf-8")
    return path


def moved(tree: Any, old: str, new: str) -> Any:
    """``tree`` with every path below ``old`` below ``new`` instead."""
    if isinstance(tree, dict):
        return {key: moved(value, old, new) for key, value in tree.items()}
    if isinstance(tree, list):
        return [moved(value, old, new) for value in tree]
    return tree.replace(old, new) if isinstance(tree, str) else tree


def current(config: Config) -> release.Release:
    """The published release, which is the one that this config made."""
    workspace = journey.workspace(config)
    published = pointer.current(workspace.store)
    assert published is not None
    assert published.release == lineage.release(config, workspace).name
    return release.load(workspace.open("releases", published.release).store)


def wait_until_it_answers(url: str, log: Path) -> None:
    """Return once ``url`` answers 200; fail with the service's log after two minutes."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            if httpx.get(url, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    pytest.fail(f"{url} does not answer: {log.read_text()}")
