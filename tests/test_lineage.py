"""What shapes a version changes its digest, what does not leaves it, and a stage builds on what is finished."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raycl import config_file, lineage
from raycl.config import Config, ModelConfig, TrainConfig
from raycl.config_loss import LossConfig
from raycl.config_values import Section
from raycl.errors import InputError
from raycl.storage.manifest import FILE
from raycl.storage.store import Store
from raycl.storage.versions import Version, Workspace

STAGES = ("pairs", "towers", "evaluations", "releases")
BASE: dict[str, Any] = {
    "workspace": "w",
    "logs": [{"uri": "log", "columns": {"context": ["device"]}}],
    "items": {"uri": "items"},
    "users": {"uri": "users"},
    "train": {"epochs": 1},
}

FEATURES = "items.features=[{column: category}]"

# Another value for every field, so that a field that is added must say here what it does.
TRAIN: dict[str, Any] = {
    "epochs": 2,
    "global_batch_size": 512,
    "learning_rate": 0.5,
    "start_from": "others",
    "item_start": "spectral",
    "table_optimizer": "adagrad",
    "shard_tables": True,
    "compile": True,
    "table_learning_rate": 0.5,
    "schedule": {"kind": "linear"},
    "validation": {"users": 7},
    "early_stop": {"patience": 7},
    "keep": "best",
    "weight_decay": 0.5,
    "warmup_share": 0.5,
    "gradient_clip": 0.5,
    "precision": "bfloat16",
    "shuffle_pairs": 7,
    "rows_per_pass": 7,
    "checkpoint_steps": 7,
    "num_workers": 4,
    "use_gpu": "never",
    "threads_per_worker": 7,
    "max_failures": 7,
    "pretrain": {"terms": ["reconstruction"]},
}
MODEL: dict[str, Any] = {
    "dim": 7,
    "hidden": [7],
    "pooling": "recency",
    "history_layers": 7,
    "history_heads": 7,
    "history_summary": "mean",
    "share_items": True,
    "item_id": False,
    "id_dropout": 0.5,
    "feature_dropout": 0.5,
    "history_dropout": 0.5,
    "request_dropout": 0.5,
    "dropout": 0.5,
    "fusion": "gates",
}
LOSS: dict[str, Any] = {
    "terms": "bpr",
    "user_balance": 0.5,
    "temperature": 0.5,
    "learn_temperature": True,
    "log_q": "off",
    "log_q_strength": 0.5,
    "sketch": {"width": 7},
    "negatives": {"uniform": 7},
}
PLACEMENT = {"num_workers", "use_gpu", "threads_per_worker", "max_failures", "checkpoint_steps", "rows_per_pass"}

# Settings of the other stages that are placement, and what cuts the work that a killed run leaves.
ELSEWHERE = {
    "pairs": {"pairs.rows_per_fragment=7"},
    "evaluations": {"evaluation.users_per_block=7", "evaluation.use_gpu=never"},
    "releases": {"index.items_per_block=7", "index.use_gpu=never"},
}
CUTS = ELSEWHERE["pairs"] | ELSEWHERE["releases"]

# Which stages' own part of the config each setting is in.
REACH: dict[str, tuple[str, set[str]]] = {
    "workspace": ("workspace=elsewhere", set()),
    "seed": ("seed=7", {"pairs", "towers", "releases"}),
    "logs": ("logs.0.uri=other", {"pairs"}),
    "event_weights": ("event_weights.view=2", {"pairs"}),
    "items": ("items.uri=other", {"pairs"}),
    "users": ("users.uri=other", {"pairs"}),
    "context": ("context=[{column: device}]", {"towers"}),
    "pairs": ("pairs.max_history=7", {"pairs"}),
    "model": ("model.dim=7", {"towers"}),
    "loss": ("loss.temperature=0.5", {"towers"}),
    "train": ("train.epochs=7", {"towers"}),
    "evaluation": ("evaluation.ks=[7]", {"evaluations"}),
    "index": ("index.num_shards=7", {"releases"}),
    "gate": ("gate.min_recall=0.5", {"releases"}),
    "nightly": ("nightly.fine_tune.epochs=7", set()),
    "serving": ("serving.port=7", set()),
    "tracking": ("tracking.mlflow_uri=http://127.0.0.1:7", set()),
    "ray": ("ray.num_cpus=7", set()),
    "ensemble": ("ensemble.towers=[a, b]", {"towers"}),
    "answers": ("answers.k=7", set()),
    "search": ("search={fields: {model.dim: [7, 8]}}", set()),
}


def changed(*overrides: str) -> Config:
    return config_file.check(config_file.apply_overrides(BASE, overrides))


def test_every_field_has_a_row_in_these_tables() -> None:
    sections: list[tuple[dict[str, Any], type[Section]]] = [
        (TRAIN, TrainConfig),
        (MODEL, ModelConfig),
        (LOSS, LossConfig),
        (REACH, Config),
    ]
    for table, section in sections:
        assert set(table) == set(section.model_fields)


@pytest.mark.parametrize("field", TRAIN)
def test_placement_leaves_the_towers_as_they_are_and_all_else_makes_others(field: str) -> None:
    plain, config = changed(FEATURES), changed(FEATURES, f"train.{field}={TRAIN[field]}")
    assert getattr(config.train, field) != getattr(plain.train, field)
    same = lineage.digest(config, "towers", "some-pairs") == lineage.digest(plain, "towers", "some-pairs")
    assert same is (field in PLACEMENT)


@pytest.mark.parametrize(
    "override",
    [f"model.{field}={value}" for field, value in MODEL.items()] + [f"loss.{f}={value}" for f, value in LOSS.items()],
)
def test_model_and_loss_make_other_towers(override: str) -> None:
    config = changed(FEATURES, override)
    assert lineage.digest(config, "towers", "some-pairs") != lineage.digest(changed(), "towers", "some-pairs")


@pytest.mark.parametrize("stage", ELSEWHERE)
def test_placement_leaves_what_every_other_stage_makes_as_it_is(stage: str) -> None:
    for override in ELSEWHERE[stage]:
        config = changed(override)
        assert lineage.part(config, stage) != lineage.part(changed(), stage)
        assert lineage.digest(config, stage, "input") == lineage.digest(changed(), stage, "input")
        assert (lineage.cut(config, stage) != lineage.cut(changed(), stage)) is (override in CUTS)


def test_work_is_cut_by_these_settings_alone() -> None:
    for override in (*(f"train.{field}={TRAIN[field]}" for field in TRAIN), "pairs.max_history=7", "seed=7"):
        assert [lineage.cut(changed(FEATURES, override), stage) for stage in STAGES] == [
            lineage.cut(changed(FEATURES), stage) for stage in STAGES
        ]
    assert [bool(lineage.cut(changed(), stage)) for stage in STAGES] == [True, False, False, True]


def test_fragments_shape_the_pairs_of_a_split_by_time(tmp_path: Path) -> None:
    """Its cuts come from a sketch of each fragment."""
    by_time = [changed("pairs.split.kind=time", f"pairs.rows_per_fragment={rows}") for rows in (7, 8)]
    assert len({lineage.digest(config, "pairs", "log") for config in by_time}) == 2
    workspace = Workspace(Store(str(tmp_path)))
    made = make_pairs(workspace, by_time[0])
    assert lineage.pairs(by_time[0], workspace) == made
    with pytest.raises(InputError, match="has no finished pairs of this config"):
        lineage.pairs(by_time[1], workspace)


@pytest.mark.parametrize("field", ["num_workers", "rows_per_pass"])
def test_workers_and_passes_shape_towers_with_dropout(field: str) -> None:
    """Each of them draws its own."""
    for dropout, num_digests in ((0.0, 1), (0.5, 2)):
        placed = [changed(f"model.dropout={dropout}", f"train.{field}={number}") for number in (1, 2)]
        assert len({lineage.digest(config, "towers", "pairs") for config in placed}) == num_digests


@pytest.mark.parametrize("name", REACH)
def test_a_setting_reaches_these_stages_and_no_other(name: str) -> None:
    override, reached = REACH[name]
    base, other = changed(), changed(override)
    assert base != other
    assert {stage for stage in STAGES if lineage.digest(other, stage, 1) != lineage.digest(base, stage, 1)} == reached
    assert {stage for stage in STAGES if lineage.part(other, stage) != lineage.part(base, stage)} == reached


def test_what_is_displayed_shapes_the_release_alone(tmp_path: Path) -> None:
    plain, other = changed(), changed("items.display=[category]")
    assert [s for s in STAGES if lineage.digest(other, s, 1) != lineage.digest(plain, s, 1)] == ["releases"]
    workspace, made = workspace_of(tmp_path, plain, 4)
    assert [find(other, workspace) for find in FINDERS[:3]] == made[:3]
    with pytest.raises(InputError, match="run 'raycl index' first"):
        lineage.release(other, workspace)


@pytest.mark.parametrize("stage", STAGES)
def test_other_inputs_make_another_version(stage: str) -> None:
    digests = [lineage.digest(changed(), stage, *inputs) for inputs in ((), ("a",), ("b",), ("a", "b"), ("b", "a"))]
    assert len(set(digests)) == len(digests)


def test_no_two_stages_share_a_digest() -> None:
    assert len({lineage.digest(changed(), stage, "a") for stage in STAGES}) == len(STAGES)


def make(workspace: Workspace, config: Config, stage: str, digest: str, inputs: dict[str, str]) -> Version:
    """A finished version with nothing in it."""
    draft = workspace.draft(stage, digest, fresh=True)
    return draft.commit(inputs=inputs, config=lineage.part(config, stage), counts={})


def make_pairs(workspace: Workspace, config: Config, source: str = "source") -> Version:
    return make(workspace, config, "pairs", lineage.digest(config, "pairs", source), {"logs": source})


def make_towers(workspace: Workspace, config: Config) -> Version:
    pairs = lineage.pairs(config, workspace).name
    return make(workspace, config, "towers", lineage.digest(config, "towers", pairs), {"pairs": pairs})


def make_evaluation(workspace: Workspace, config: Config) -> Version:
    towers = lineage.towers(config, workspace).name
    digest = lineage.digest(config, "evaluations", towers)
    return make(workspace, config, "evaluations", digest, {"towers": towers})


def make_release(workspace: Workspace, config: Config) -> Version:
    towers, evaluation = lineage.towers(config, workspace).name, lineage.evaluation(config, workspace).name
    digest = lineage.digest(config, "releases", towers, evaluation)
    return make(workspace, config, "releases", digest, {"towers": towers, "evaluation": evaluation})


MAKERS: tuple[Callable[[Workspace, Config], Version], ...] = (make_pairs, make_towers, make_evaluation, make_release)
FINDERS = (lineage.pairs, lineage.towers, lineage.evaluation, lineage.release)
COMMANDS = ("pairs", "train", "evaluate", "index")


def workspace_of(folder: Path, config: Config, num_stages: int) -> tuple[Workspace, list[Version]]:
    """A workspace in which the first stages are finished."""
    workspace = Workspace(Store(str(folder)))
    return workspace, [make_stage(workspace, config) for make_stage in MAKERS[:num_stages]]


def test_every_stage_finds_what_the_one_before_left(tmp_path: Path) -> None:
    workspace, made = workspace_of(tmp_path, changed(), 4)
    assert [find(changed(), workspace) for find in FINDERS] == made


@pytest.mark.parametrize("finished", range(4))
def test_the_first_stage_that_is_missing_is_named_with_its_command(tmp_path: Path, finished: int) -> None:
    workspace, _ = workspace_of(tmp_path, changed(), finished)
    for find in FINDERS[finished:]:
        with pytest.raises(InputError) as caught:
            find(changed(), workspace)
        assert str(caught.value) == (
            f"workspace={tmp_path} has no finished {STAGES[finished]} of this config:"
            f" run 'raycl {COMMANDS[finished]}' first"
        )


@pytest.mark.parametrize(
    ("override", "found"),
    [("pairs.max_history=7", 0), ("model.dim=7", 1), ("evaluation.ks=[7]", 2), ("gate.min_recall=0.5", 3)],
)
def test_another_config_finds_what_it_shares_and_no_more(tmp_path: Path, override: str, found: int) -> None:
    workspace, made = workspace_of(tmp_path, changed(), 4)
    other = changed(override)
    assert [find(other, workspace) for find in FINDERS[:found]] == made[:found]
    for find in FINDERS[found:]:
        with pytest.raises(InputError, match=f"run 'raycl {COMMANDS[found]}' first"):
            find(other, workspace)


def test_placement_finds_the_same_versions(tmp_path: Path) -> None:
    workspace, made = workspace_of(tmp_path, changed(), 4)
    placed = {override for overrides in ELSEWHERE.values() for override in overrides}
    placed |= {f"train.{field}={TRAIN[field]}" for field in PLACEMENT}
    moved = changed(*placed, "serving.port=7", "ray.num_cpus=7")
    assert [find(moved, workspace) for find in FINDERS] == made


@pytest.mark.parametrize("content", ['{"format": 2, "raycl": "9.1"}', "{}"])
def test_pairs_that_this_raycl_cannot_read_stand_in_nobody_s_way(tmp_path: Path, content: str) -> None:
    workspace, made = workspace_of(tmp_path, changed(), 4)
    for override in ("seed=0", "seed=1"):
        make_pairs(workspace, changed(override)).store.write(FILE, content.encode())
    assert [find(changed(), workspace) for find in FINDERS] == made


def test_pairs_in_columns_of_an_older_raycl_are_passed_over(tmp_path: Path) -> None:
    workspace, made = workspace_of(tmp_path, changed(), 1)
    older = make_pairs(workspace, changed(), "another source")
    plain = json.loads(older.store.read(FILE))
    plain["columns"] = {"sequences": {"user": "int64", "first_target": "int32"}}
    older.store.write(FILE, json.dumps(plain).encode())
    assert lineage.pairs(changed(), workspace) == made[0]


def test_newer_pairs_of_the_same_config_need_new_towers(tmp_path: Path) -> None:
    workspace, made = workspace_of(tmp_path, changed(), 4)
    newer = make_pairs(workspace, changed(), "a source that grew")
    make_pairs(workspace, changed("pairs.max_history=7"))
    assert lineage.pairs(changed(), workspace) == newer != made[0]
    with pytest.raises(InputError, match="has no finished towers of this config: run 'raycl train' first"):
        lineage.release(changed(), workspace)


def test_of_towers_that_were_made_twice_the_newer_are_found(tmp_path: Path) -> None:
    workspace, made = workspace_of(tmp_path, changed(), 2)
    again = make_towers(workspace, changed())
    assert again.name > made[1].name
    assert lineage.towers(changed(), workspace) == again
