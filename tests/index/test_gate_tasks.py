"""The evidence that the gate gets, against the same worked out in one piece."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import safetensors.torch as st

from raycl import journey, lineage
from raycl.config import Config
from raycl.data import reader
from raycl.data.handoff import Pairs
from raycl.errors import CorruptRelease, GateRefused, RayclError
from raycl.evaluation.tasks import item_features, user_features, user_vectors
from raycl.index import gate, nearest, previous, questions, release, tasks
from raycl.index.work import Job
from raycl.model import embed, weights
from raycl.model.users import UserSide
from raycl.storage import pointer, tables
from raycl.storage.versions import Version
from tests import tiny as builders
from tests.index.builders import built, write_consistently


@pytest.fixture
def workspace(tiny: Config, tmp_path: Path) -> Config:
    """A copy of the workspace, with its published release."""
    return builders.copied(tiny, tmp_path)


def evidence(version: Version) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(version.store.read(release.GATE_FILE))["evidence"]
    return found


def alter_items(config: Config, change: Any) -> None:
    """Change the item tower's own embeddings, rows of which are one below; the manifest is made to agree."""
    towers = lineage.towers(config, journey.workspace(config)).store
    state = st.load(towers.read(weights.ITEM_FILE))
    change(state)
    write_consistently(towers, weights.ITEM_FILE, st.save(state))


def test_ndcg_and_coverage_are_those_of_the_answers_to_held_out_users(workspace: Config) -> None:
    config = builders.changed(workspace, "index", kind="ivf_flat", num_lists=3)
    config = builders.changed(config, "gate", min_index_recall=0.0)
    version = journey.index(config).version
    towers = lineage.towers(config, journey.workspace(config)).store
    pairs = Pairs.of(lineage.pairs(config, journey.workspace(config)))
    asked, targets = [], []
    for path, _ in pairs.files("test"):
        sequences = reader.read(pairs.store, [path], "test")
        asked.append(user_vectors(pairs, towers, sequences, "test"))
        targets.append(sequences.items[sequences.spans("test", pairs.rules).first])
    queries, wanted = np.concatenate(asked), np.concatenate(targets).astype(np.int64)
    index = release.load(version.store).index
    found, _ = index.probe(queries, 10, 1)
    best, _ = nearest.exact(embed.items(weights.load_item(towers), item_features(pairs)), queries, 10)
    measured = evidence(version)
    assert measured["ndcg"] == pytest.approx(gate.ndcg(found, wanted).mean())
    assert measured["exact_ndcg"] == pytest.approx(gate.ndcg(best, wanted).mean())
    assert 0.0 < measured["ndcg"] < measured["exact_ndcg"]
    assert measured["coverage"] == pytest.approx(len(np.unique(found[found >= 0])) / builders.NUM_ITEMS)
    assert measured["index_recall"] == pytest.approx(nearest.recall(found, best))
    assert measured["search_ms"] > 0.0


def test_a_release_of_the_same_towers_agrees_with_the_current_one(workspace: Config) -> None:
    version = journey.index(builders.changed(workspace, "index", num_shards=2)).version
    assert evidence(version)["previous"] == {
        "name": built(workspace).name,
        "num_vectors": builders.NUM_ITEMS,
        "agreement": 1.0,
    }


@pytest.fixture
def job(workspace: Config) -> Job:
    """The job of a release beside the published one."""
    place = journey.workspace(workspace)
    towers, pairs = lineage.towers(workspace, place), lineage.pairs(workspace, place)
    return Job(place.draft("releases", "0" * 64), pairs, towers, lineage.evaluation(workspace, place), workspace)


def exact_answers(job: Job, sign: float = 1.0) -> nearest.Ids:
    """Of the gate's queries, or with -1 the items that are farthest."""
    pairs = Pairs.of(job.pairs)
    side = UserSide.load(job.towers.store)
    queries = side.vectors(questions.drawn(job).states, user_features(pairs))
    vectors = embed.items(weights.load_item(job.towers.store), item_features(pairs))
    return nearest.exact(vectors, sign * queries, 10)[0]


def test_agreement_is_the_share_of_answers_that_both_give(job: Job) -> None:
    """The 10 nearest of 30 items and the 10 farthest have none in common."""
    before, nearest = built(job.config), exact_answers(job)
    assert previous.compare(job, before, nearest).agreement == 1.0
    assert previous.compare(job, before, exact_answers(job, -1.0)).agreement == 0.0
    assert previous.compare(job, before, nearest[:, :5]).agreement == 1.0
    half = np.concatenate([nearest[:, :5], exact_answers(job, -1.0)[:, :5]], axis=1)
    assert previous.compare(job, before, half).agreement == 0.5


def test_items_are_compared_by_their_ids_and_not_by_their_rows(job: Job) -> None:
    """The release before has the items in another order: rows are told apart by id."""
    before, nearest = built(job.config), exact_answers(job)
    catalogue = tables.read(before.store, release.CATALOGUE_FILE)
    turned = catalogue.take(pa.array(np.roll(np.arange(builders.NUM_ITEMS), 1)))
    tables.write(before.store, release.CATALOGUE_FILE, turned)
    assert previous.compare(job, before, nearest).agreement < 0.9


def test_without_a_current_release_there_is_no_comparison(workspace: Config) -> None:
    shutil.rmtree(Path(workspace.workspace, pointer.FOLDER))
    version = journey.index(builders.changed(workspace, "index", num_shards=2)).version
    assert evidence(version)["previous"] is None


def test_a_current_release_that_is_damaged_is_passed_over(workspace: Config) -> None:
    built(workspace).store.write(release.shard_file(0), b"")
    version = journey.index(builders.changed(workspace, "index", num_shards=2)).version
    assert evidence(version)["previous"] is None
    assert version.manifest.facts["publish"]


def test_towers_that_make_nothing_but_null_vectors_are_named(workspace: Config) -> None:
    def change(state: dict[str, Any]) -> None:
        for name in state:
            if state[name].is_floating_point():
                state[name].zero_()

    alter_items(workspace, change)
    config = builders.changed(workspace, "index", num_shards=2)
    with pytest.raises(RayclError, match="no item has a vector that is finite and not zero"):
        journey.index(config)


def test_duplicate_vectors_are_counted_over_all_shards_and_refused(workspace: Config) -> None:
    """Where the items' own embeddings are gone, items with equal features have equal vectors."""

    def change(state: dict[str, Any]) -> None:
        for name in state:
            if state[name].is_floating_point() and "bias" not in name:
                state[name].zero_()

    alter_items(workspace, change)
    config = builders.changed(workspace, "index", num_shards=4)
    version = journey.index(config).version
    assert evidence(version)["num_duplicates"] == builders.NUM_ITEMS - 1
    assert "share of duplicate vectors 0.9667 > 0.5 of 30" in version.manifest.facts["reason"]
    before = pointer.current(journey.workspace(config).store)
    with pytest.raises(GateRefused, match="share of duplicate vectors"):
        journey.publish(config)
    assert pointer.current(journey.workspace(config).store) == before


def test_a_shard_that_is_altered_before_the_commit_is_refused_by_name(
    workspace: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = builders.changed(workspace, "index", num_shards=2)
    write_towers = tasks.write_towers

    def alter(job: Any) -> None:
        write_towers(job)
        content = job.draft.store.read(release.shard_file(1))
        job.draft.store.write(release.shard_file(1), content[:-1] + bytes([content[-1] ^ 1]))

    monkeypatch.setattr(tasks, "write_towers", alter)
    with pytest.raises(CorruptRelease, match=r"shards/00001\.faiss has SHA-256 \w+, its writer sent \w+: "):
        journey.index(config)


def test_gate_json_keeps_every_check_with_its_bound(workspace: Config) -> None:
    version = journey.index(builders.changed(workspace, "gate", max_index_bytes=10)).version
    kept = json.loads(version.store.read(release.GATE_FILE))["verdict"]
    (size,) = [check for check in kept["checks"] if check["name"] == "size"]
    assert size["value"] == version.manifest.counts["index_bytes"] > size["bound"] == 10
    assert not kept["publish"]
