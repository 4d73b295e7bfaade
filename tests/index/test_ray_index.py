"""The stage on Ray: what it leaves, that a killed one goes on to the same bytes, and what its gate refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
import safetensors.torch as st

from raycl import journey, lineage
from raycl.config import Config
from raycl.data import reader
from raycl.data.handoff import Pairs
from raycl.data.hashing import hash_ids
from raycl.errors import ConfigError, CorruptRelease, GateRefused, RayclError
from raycl.evaluation.tasks import item_features, user_vectors
from raycl.index import build_tasks, gate_tasks, nearest, release, release_diff, tasks
from raycl.index.plan import Plan, choose
from raycl.model import embed, weights
from raycl.storage import pointer, tables
from raycl.storage.store import Store
from raycl.storage.versions import WORK, Version
from tests import tiny as builders
from tests.index.builders import Vectors, built, unit_vectors, write_consistently

KINDS = [{"kind": "flat"}, {"kind": "ivf_flat", "num_lists": 3}, {"kind": "sq8", "rerank": "always"}]
NAMES = ["flat", "ivf_flat", "sq8"]


@pytest.fixture
def workspace(tiny: Config, tmp_path: Path) -> Config:
    """A copy of the workspace without releases."""
    config = builders.copied(tiny, tmp_path)
    shutil.rmtree(Path(config.workspace) / "releases")
    return config


def towers_and_pairs(config: Config) -> tuple[Store, Pairs]:
    towers = lineage.towers(config, journey.workspace(config))
    return towers.store, Pairs.of(lineage.pairs(config, journey.workspace(config)))


def all_vectors(config: Config) -> Vectors:
    """Vectors of every item, made by one process in one go."""
    towers, pairs = towers_and_pairs(config)
    return embed.items(weights.load_item(towers), item_features(pairs))


def job_of(config: Config) -> tasks.Job:
    """The job that the stage would make, on the draft that the stage would find."""
    workspace = journey.workspace(config)
    measured = lineage.evaluation(config, workspace)
    towers, pairs = lineage.towers(config, workspace), lineage.pairs(config, workspace)
    digest = lineage.digest(config, "releases", towers.name, measured.name)
    return tasks.Job(workspace.draft("releases", digest), pairs, towers, measured, config)


def shards(version: Version) -> list[bytes]:
    return [version.store.read(path) for path in version.store.files("shards")]


def test_another_display_makes_another_release_of_the_same_towers(workspace: Config, tiny: Config) -> None:
    other = builders.changed(workspace, "items", display=["category"])
    assert not journey.pairs(other).worked
    assert not journey.train(other, lambda _: None).worked
    assert journey.index(other).worked
    before, after = (tables.read(built(one).store, release.CATALOGUE_FILE) for one in (tiny, other))
    assert after.to_pydict() == before.drop_columns(["price"]).to_pydict()
    root = journey.workspace(other)
    shutil.copytree(Path(tiny.workspace) / "releases", Path(other.workspace) / "releases", dirs_exist_ok=True)
    found = release_diff.between(other, root, root.open("releases", built(tiny).name), built(other))
    assert [(one.name, one.before, one.after) for one in found.config] == [
        ("items.display", ["category", "price"], ["category"])
    ]


def damage_item_tower(config: Config, rows: list[int]) -> None:
    """Put numbers that are not finite into the embeddings of these vocabulary rows, all of which training has seen."""
    towers, _ = towers_and_pairs(config)
    state = st.load(towers.read(weights.ITEM_FILE))
    assert state["known"][rows].all()
    for row in rows:
        state["ids.weight"][row + 1] = float("inf") if row % 2 else float("nan")
    write_consistently(towers, weights.ITEM_FILE, st.save(state))


def test_the_release_holds_every_item_in_the_shard_of_its_hash(tiny: Config) -> None:
    version, vectors = built(tiny), all_vectors(tiny)
    item_ids = towers_and_pairs(tiny)[1].vocabulary()["item"].combine_chunks()
    shard_of = hash_ids(item_ids) % np.uint64(3)
    held = []
    for number, content in enumerate(shards(version)):
        index: Any = faiss.deserialize_index(np.frombuffer(content, dtype=np.uint8))
        rows = faiss.vector_to_array(index.id_map)
        assert set(shard_of[rows].tolist()) == {number}
        np.testing.assert_allclose(index.reconstruct_batch(rows), vectors[rows], atol=1e-6)
        held += rows.tolist()
    assert sorted(held) == list(range(builders.NUM_ITEMS))


def test_the_end_state_binds_the_towers_and_leaves_no_work(tiny: Config) -> None:
    version = built(tiny)
    made = lineage.towers(tiny, journey.workspace(tiny))
    assert version.store.files() == [
        "catalogue/items.parquet",
        "gate.json",
        "item_tower/config.json",
        "item_tower/features.json",
        "item_tower/item.safetensors",
        "lineage.json",
        "manifest.json",
        "search.json",
        "shards/00000.faiss",
        "shards/00001.faiss",
        "shards/00002.faiss",
        "user_tower/config.json",
        "user_tower/context.json",
        "user_tower/features.json",
        "user_tower/user.safetensors",
    ]
    lines = release.Lineage(**json.loads(version.store.read(release.LINEAGE_FILE)))
    assert lines == release.Lineage(
        pairs=made.manifest.inputs["pairs"],
        towers=made.name,
        evaluation=lineage.evaluation(tiny, journey.workspace(tiny)).name,
        user_tower=made.store.sha256(weights.USER_FILE),
        item_tower=made.store.sha256(weights.ITEM_FILE),
    )
    assert version.manifest.counts == {
        "items": builders.NUM_ITEMS,
        "vectors": builders.NUM_ITEMS,
        "index_bytes": sum(len(content) for content in shards(version)),
    }
    assert version.manifest.dropped == {}
    assert version.manifest.facts["index_recall"] == 1.0
    assert version.manifest.facts["publish"] is True


def test_the_evidence_is_the_recall_against_every_score(workspace: Config) -> None:
    """Of an index that looks into one list of three, with the held-out users as queries, at three numbers of items."""
    config = builders.changed(
        builders.changed(workspace, "index", kind="ivf_flat", num_lists=3), "gate", min_index_recall=0.0
    )
    version = journey.index(config).version
    loaded, (towers, pairs) = release.load(version.store), towers_and_pairs(config)
    asked = np.concatenate(
        [
            user_vectors(pairs, towers, reader.read(pairs.store, [path], "test"), "test")
            for path, _ in pairs.files("test")
        ]
    )
    best = np.argsort(-(asked @ all_vectors(config).T), axis=1)
    measured = [nearest.recall(loaded.index.probe(asked, k, 1)[0], best[:, :k]) for k in (10, 30)]
    assert 0.2 < measured[1] < measured[0] < 1.0
    assert version.manifest.facts["index_recall"] == pytest.approx(measured[0])
    assert [(depth.k, depth.nprobe) for depth in loaded.index.depths] == [(10, 1), (30, 1)]
    assert [depth.recall for depth in loaded.index.depths] == pytest.approx(measured)


def test_lists_are_probed_as_deep_as_the_floor_needs(workspace: Config) -> None:
    config = builders.changed(
        builders.changed(workspace, "index", kind="ivf_flat", num_lists=3), "gate", min_index_recall=1.0
    )
    version = journey.index(config).version
    assert version.manifest.facts["depths"][0] == {"k": 10, "nprobe": 3, "recall": 1.0, "ef": 0, "candidates": 0}
    assert version.manifest.facts["index_recall"] == 1.0
    assert release.load(version.store).index.depths[0].nprobe == 3


@pytest.mark.parametrize("index", KINDS, ids=NAMES)
def test_the_number_of_blocks_does_not_matter_to_the_answers(workspace: Config, index: dict[str, Any]) -> None:
    queries = unit_vectors(20, 8)
    answers = []
    for items_per_block, num_shards in ((1_000, 1), (4, 2), (1, 7)):
        config = builders.changed(workspace, "index", **index, items_per_block=items_per_block, num_shards=num_shards)
        answers.append(release.load(journey.index(config).version.store).index.search(queries, 12))
    # Towers round by how many rows they are given, and the half-precision vectors that rank again may be the next ones.
    tolerance = 1e-3 if index["kind"] == "sq8" else 1e-5
    for ids, scores in answers[1:]:
        np.testing.assert_array_equal(ids, answers[0][0])
        np.testing.assert_allclose(scores, answers[0][1], atol=tolerance)


def test_a_finished_release_is_found_again_and_force_makes_a_new_one(workspace: Config) -> None:
    first = journey.index(workspace)
    assert first.worked
    assert not journey.index(workspace).worked
    again = journey.index(workspace, force=True)
    assert again.version.name != first.version.name
    assert shards(again.version) == shards(first.version)


@pytest.mark.parametrize("index", KINDS, ids=NAMES)
def test_a_run_killed_between_blocks_goes_on_to_the_same_bytes(workspace: Config, index: dict[str, Any]) -> None:
    config = builders.changed(workspace, "index", **index)
    whole = journey.index(config).version
    expected = shards(whole)
    shutil.rmtree(whole.store.uri)

    job = job_of(config)
    tasks.embed_block(job, 0)
    tasks.embed_block(job, 2)
    (Path(job.draft.store.full(f"{WORK}/done")) / "block-000002.json").unlink()  # killed before its record
    (Path(job.draft.store.full(f"{WORK}/vectors")) / ".block-000001.arrow.0.partial").write_bytes(b"half")

    resumed = journey.index(config)
    assert resumed.worked
    assert resumed.version.name == job.draft.name
    assert shards(resumed.version) == expected
    assert resumed.version.manifest.counts == whole.manifest.counts
    assert resumed.version.store.files() == sorted([*whole.manifest.checksums, "manifest.json"])


def test_a_run_that_dies_after_its_shards_goes_on_to_the_same_bytes(
    workspace: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = journey.index(workspace).version
    expected = shards(whole)
    shutil.rmtree(whole.store.uri)

    def die(job: tasks.Job) -> None:
        raise RuntimeError("killed here")

    with monkeypatch.context() as patched:
        patched.setattr(tasks, "write_towers", die)
        with pytest.raises(RuntimeError, match="killed here"):
            journey.index(workspace)
    assert journey.workspace(workspace).finished("releases") == []
    (draft,) = Path(workspace.workspace, "releases").glob("2*")
    (draft / WORK / "done" / "shard-000001.json").unlink()
    (draft / "shards" / "00001.faiss").unlink()

    resumed = journey.index(workspace).version
    assert resumed.name == draft.name
    assert shards(resumed) == expected
    release.verify(resumed.store)


def plan_of(job: tasks.Job) -> Plan:
    return choose(job.config.index, job.num_items, job.dim, job.config.gate.min_index_recall)


def embed_all(job: tasks.Job) -> tasks.Embedded:
    return tasks.agree(job, [tasks.embed_block(job, block) for block in range(job.num_blocks)])


def test_a_finished_task_is_not_done_again(workspace: Config) -> None:
    job = job_of(builders.changed(workspace, "index", kind="ivf_flat", num_lists=3))
    item_tower = job.towers.manifest.checksums[weights.ITEM_FILE]
    embed_all(job)
    trained, drawn = build_tasks.train(job, plan_of(job)), tasks.draw_queries(job)
    shard = build_tasks.build_shard(job, plan_of(job), 0)
    truth = gate_tasks.Truth(builders.NUM_USERS, (10, 30))
    exact = gate_tasks.exact_shard(job, truth, 0)
    for path in ("vectors/block-000000.arrow", "fingerprints/block-000000.arrow", "trained.faiss", "queries.npy"):
        Path(job.draft.store.full(f"{WORK}/{path}")).unlink()
    Path(job.draft.store.full(release.shard_file(0))).unlink()
    assert tasks.embed_block(job, 0) == {"items": 11, "null": 0, "not_finite": 0, "item_tower": item_tower}
    assert build_tasks.train(job, plan_of(job)) == trained == {"vectors": builders.NUM_ITEMS, "on_gpu": False}
    assert tasks.draw_queries(job) == drawn == {"queries": builders.NUM_USERS}
    assert build_tasks.build_shard(job, plan_of(job), 0) == shard
    assert gate_tasks.exact_shard(job, truth, 0) == exact
    assert job.draft.store.files("shards") == []


def test_blocks_cover_every_item_once(workspace: Config) -> None:
    job = job_of(workspace)
    assert [tasks.embed_block(job, block)["items"] for block in range(job.num_blocks)] == [11, 11, 8]
    np.testing.assert_allclose(build_tasks.sample(job, builders.NUM_ITEMS), all_vectors(workspace), atol=1e-6)


def test_a_sample_is_an_even_share_drawn_by_the_seed(workspace: Config) -> None:
    job = job_of(workspace)
    embed_all(job)
    assert len(np.unique(build_tasks.sample(job, 1_000), axis=0)) == builders.NUM_ITEMS
    assert len(build_tasks.sample(job, 10)) == 10
    assert np.array_equal(build_tasks.sample(job, 10), build_tasks.sample(job, 10))


def drawn_queries(job: tasks.Job) -> Vectors:
    tasks.draw_queries(job)
    return np.asarray(np.load(job.draft.store.full(f"{WORK}/queries.npy")))


def test_queries_are_held_out_users_and_no_more_than_asked(workspace: Config) -> None:
    everybody = drawn_queries(job_of(workspace))
    few = drawn_queries(job_of(builders.changed(workspace, "gate", num_queries=11)))
    assert (len(everybody), len(few)) == (builders.NUM_USERS, 11)
    assert {vector.tobytes() for vector in few} <= {vector.tobytes() for vector in everybody}


def test_queries_are_drawn_before_they_are_embedded(workspace: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """And they are those that would be drawn from the vectors of all users of each file."""
    (towers, pairs), generator, wanted = towers_and_pairs(workspace), np.random.default_rng([workspace.seed, 2]), 7
    expected = []
    for path, _ in pairs.files("test"):
        vectors = user_vectors(pairs, towers, reader.read(pairs.store, [path], "test"), "test")
        expected.append(vectors[generator.permutation(len(vectors))[:4]])
    embedded: list[int] = []

    def listen(tower: Any, history: Any, *state: Any) -> Vectors:
        embedded.append(len(history))
        return users(tower, history, *state)

    users = embed.users
    monkeypatch.setattr(embed, "users", listen)
    found = drawn_queries(job_of(builders.changed(workspace, "gate", num_queries=wanted)))
    np.testing.assert_allclose(found, np.concatenate(expected)[:wanted], atol=1e-6)
    assert embedded == [wanted]


@pytest.mark.parametrize("num_shards", [1, 2, 7])
def test_the_truth_of_the_shards_is_that_of_all_vectors(workspace: Config, num_shards: int) -> None:
    job = job_of(builders.changed(workspace, "index", num_shards=num_shards))
    embedded, queries = embed_all(job), drawn_queries(job)
    truth = gate_tasks.truth_of(job, embedded, {"queries": len(queries)})
    assert truth == gate_tasks.Truth(builders.NUM_USERS, (10, 30))
    for shard in range(num_shards):
        gate_tasks.exact_shard(job, truth, shard)
    gate_tasks.merge_truth(job, truth)
    expected = np.argsort(-(queries @ all_vectors(workspace).T), axis=1, kind="stable")
    for place, k in enumerate(truth.ks):
        np.testing.assert_array_equal(np.load(job.draft.store.full(f"{WORK}/truth-{place}.npy")), expected[:, :k])


def swap_item_tower(config: Config, other: Config) -> str:
    """Put the item tower of ``other`` in place of that of ``config``, as no manifest tells; returns its checksum."""
    towers, foreign = (lineage.towers(one, journey.workspace(one)).store for one in (config, other))
    towers.write(weights.ITEM_FILE, foreign.read(weights.ITEM_FILE))
    return towers.sha256(weights.ITEM_FILE)


def test_the_release_names_the_item_tower_that_the_tasks_read(workspace: Config) -> None:
    version = journey.index(workspace).version
    made = lineage.towers(workspace, journey.workspace(workspace))
    how = json.loads(version.store.read(release.SEARCH_FILE))
    assert how["item_tower"] == made.store.sha256(weights.ITEM_FILE)


def test_vectors_of_another_item_tower_are_refused(workspace: Config, pair_of_releases: tuple[Config, Config]) -> None:
    """Of the same shape; one block of three was embedded before the file was swapped, and two after."""
    job = job_of(workspace)
    blocks = [tasks.embed_block(job, 0)]
    found = swap_item_tower(workspace, pair_of_releases[1])
    blocks += [tasks.embed_block(job, 1), tasks.embed_block(job, 2)]
    expected = job.towers.manifest.checksums[weights.ITEM_FILE]
    told = rf"item\.safetensors: 2 of 3 embedding tasks read weights of SHA-256 {found[:12]}, .* says {expected[:12]}: "
    with pytest.raises(CorruptRelease, match=told):
        tasks.agree(job, blocks)
    with pytest.raises(CorruptRelease, match=r"item\.safetensors"):
        journey.index(workspace)
    assert journey.workspace(workspace).finished("releases") == []


def test_a_user_tower_that_the_manifest_does_not_name_is_not_copied(
    workspace: Config, pair_of_releases: tuple[Config, Config]
) -> None:
    job = job_of(workspace)
    other = lineage.towers(pair_of_releases[1], journey.workspace(pair_of_releases[1])).store
    job.towers.store.write(weights.USER_FILE, other.read(weights.USER_FILE))
    with pytest.raises(CorruptRelease, match=r"user\.safetensors has SHA-256 .*, its manifest says .*: train again"):
        tasks.write_towers(job)
    assert not job.draft.store.exists(release.USER_TOWER)


def test_vectors_that_are_not_finite_are_counted_and_refused(workspace: Config) -> None:
    damage_item_tower(workspace, [4, 17])
    version = journey.index(workspace).version
    assert version.manifest.dropped == {"not_finite": 2}
    assert version.manifest.counts["vectors"] == builders.NUM_ITEMS - 2
    assert version.manifest.facts["reason"] == "share of vectors that are not finite 0.0667 > 0 of 30"
    found, _ = release.load(version.store).index.search(unit_vectors(5, 8), builders.NUM_ITEMS)
    assert not {4, 17} & set(found.ravel().tolist())
    with pytest.raises(GateRefused, match="share of vectors that are not finite"):
        journey.publish(workspace)
    assert pointer.current(journey.workspace(workspace).store) is None


@pytest.mark.parametrize("index", KINDS, ids=NAMES)
def test_towers_without_one_finite_vector_are_named(workspace: Config, index: dict[str, Any]) -> None:
    config = builders.changed(workspace, "index", **index)
    towers, _ = towers_and_pairs(config)
    state = {name: tensor.clone() for name, tensor in st.load(towers.read(weights.ITEM_FILE)).items()}
    for name in state:
        if state[name].is_floating_point():
            state[name].fill_(float("nan"))
    write_consistently(towers, weights.ITEM_FILE, st.save(state))
    with pytest.raises(
        RayclError,
        match=r"no item has a vector that is finite and not zero in towers 2\S+ \(30 are not finite\): lower",
    ):
        journey.index(config)


def test_a_gpu_that_is_demanded_and_absent_is_a_bad_config(workspace: Config) -> None:
    if getattr(faiss, "get_num_gpus", lambda: 0)():
        pytest.skip("FAISS finds a GPU here")
    config = builders.changed(workspace, "index", kind="ivf_flat", num_lists=3, use_gpu="always")
    with pytest.raises(ConfigError, match=r"index\.use_gpu=always and FAISS finds no GPU"):
        journey.index(config)
