"""Tuning through the pairs stage: found again, gone on with after a kill, and blind to what is held out."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("sentence_transformers", reason="needs the extra 'text'")
import safetensors.torch as st

from raycl import config_encode, config_file, journey, lineage, nightly
from raycl.config import Config
from raycl.data import splits
from raycl.data.handoff import Pairs
from raycl.errors import ConfigError, CorruptRelease, InputError
from raycl.storage import tables
from raycl.storage.versions import Version
from raycl.text import encoders, ray_encode, ray_tune, tasks, tune_tasks, tuned
from tests import tiny as builders
from tests import tiny_transformer
from tests.here import without_ray

WORDS = ["Item", "tea", "rope", "lamp", *(str(builders.FIRST_ITEM + row) for row in range(builders.NUM_ITEMS))]
TUNING = {"learning_rate": 1e-3, "batch_size": 16, "temperature": 0.2}


@pytest.fixture(scope="module", autouse=True)
def here() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        without_ray(patched)
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_transformer.save(tmp_path_factory.mktemp("model"), WORDS)


def tree_of(folder: Path, model: Path, **tuning: Any) -> dict[str, Any]:
    tree = builders.tiny_tree(folder)
    encoding = {"column": "said", "of": ["title", "category"], "model": str(model), "max_tokens": 8}
    tree["items"]["encode"] = [{**encoding, "fine_tune": {**TUNING, **tuning}}]
    tree["items"]["features"] += [{"column": "said", "kind": "vector", "length": tiny_transformer.LENGTH}]
    return tree


def config_of(folder: Path, model: Path, **tuning: Any) -> Config:
    if not (folder / "log").exists():
        builders.write_log(folder / "log")
    return config_file.check(tree_of(folder, model, **tuning))


def made(config: Config) -> Version:
    """The tuned encoder of the newest pairs of ``config``, which are made."""
    journey.pairs(config)
    return found(config)


def found(config: Config) -> Version:
    workspace = journey.workspace(config)
    pairs = ray_tune.pairs(config, workspace)
    assert pairs is not None
    versions = ray_tune.found(config, workspace, pairs)
    assert versions is not None
    return versions[0]


def work_of(config: Config) -> tune_tasks.Work:
    """What would be tuned of ``config``, on pairs that are made."""
    first = config_encode.before(config)
    assert first is not None
    assert config.items is not None
    return tune_tasks.Work(config.items, 0, journey.pairs(first).version, config.seed, "")


def named(read: tuple[list[str], Any]) -> list[tuple[str, str]]:
    """Pairs of texts, in the order of the draw."""
    words, pairs = read
    return [(words[one], words[other]) for one, other in pairs]


def test_all_items_have_vectors_of_the_tuned_encoder_and_everything_is_found_again(model: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, model)
    workspace = journey.workspace(config)
    outcome = journey.pairs(config)
    encoder = found(config)
    chosen = config.items.encode[0] if config.items else None
    assert chosen is not None
    table = pq.read_table(tmp_path / "log" / "items.parquet")
    words = tasks.texts(table, chosen.of)
    encoded = Pairs.of(outcome.version).encoded("items")
    assert encoded is not None
    vectors = np.array(encoded["said"].to_pylist())
    np.testing.assert_allclose(vectors, tuned.encoder(encoder, chosen, "f")(words), atol=1e-5)
    assert np.abs(vectors - encoders.load(chosen, "f")(words)).max() > 1e-3
    again = journey.pairs(config)
    assert (again.version.name, again.worked) == (outcome.version.name, False)
    assert lineage.pairs(config, workspace).name == outcome.version.name
    assert {step.stage: step.would for step in nightly.plan(config)}["pairs"] == "nothing"
    assert len(workspace.finished(tuned.STAGE)) == len(workspace.finished(tasks.STAGE)) == 1
    assert len(workspace.finished("pairs")) == 2
    weights = st.load(encoder.verified(tuned.FILE).store.read(tuned.FILE))
    assert {name.partition(".")[0] for name in weights} == {"1"}
    assert encoder.manifest.counts["pairs"] > 50
    assert len(encoder.manifest.facts["losses"]) > 1


def test_without_tuning_nothing_of_it_is_made_and_configs_are_told_as_before(model: Path, tmp_path: Path) -> None:
    builders.write_log(tmp_path / "log")
    tree = tree_of(tmp_path, model)
    del tree["items"]["encode"][0]["fine_tune"]
    config = config_file.check(tree)
    outcome = journey.pairs(config)
    assert "fine_tune" not in outcome.version.manifest.config["items"]["encode"][0]
    assert journey.workspace(config).finished(tuned.STAGE) == []
    assert len(journey.workspace(config).finished("pairs")) == 1
    assert outcome.version.manifest.inputs["encodings"] in journey.workspace(config).finished(tasks.STAGE)


def test_another_log_other_settings_or_another_model_make_another_encoder(model: Path, tmp_path: Path) -> None:
    own = shutil.copytree(model, tmp_path / "own")
    config = config_of(tmp_path, own)
    changed = [config_of(tmp_path, own, temperature=0.3), config_of(tmp_path, own, seed=4)]
    changed.append(config.model_copy(update={"seed": 5}))
    made_of = [made(one) for one in [config, *changed]]
    log = tmp_path / "log" / "events.parquet"
    table = pq.read_table(log)
    pq.write_table(table.slice(0, len(table) - 1), log)
    assert ray_tune.pairs(config, journey.workspace(config)) is None
    made_of.append(made(config))
    shutil.rmtree(own)
    shutil.copytree(tiny_transformer.save(tmp_path / "other", WORDS, seed=1), own)  # as a package that is upgraded
    made_of.append(made(config))
    assert len({version.manifest.fingerprint for version in made_of}) == 6
    assert len({version.store.read(tuned.FILE) for version in made_of}) == 6


def test_the_same_work_in_another_workspace_learns_the_same(model: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, model)
    elsewhere = config.model_copy(update={"workspace": str(tmp_path / "elsewhere")})
    one, other = (made(each).manifest for each in (config, elsewhere))
    assert one.fingerprint == other.fingerprint
    assert one.checksums == other.checksums


def test_a_run_that_was_killed_before_it_encoded_does_not_tune_again(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tmp_path, model)

    def killed(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(tasks, "encode_fragment", killed)
        with pytest.raises(KeyboardInterrupt):
            journey.pairs(config)
    encoder = found(config)
    assert ray_encode.found(config, journey.workspace(config)) is None
    monkeypatch.setattr(tune_tasks, "tune", killed)
    journey.pairs(config)
    assert found(config).name == encoder.name


def test_a_run_that_was_killed_while_it_tuned_leaves_no_encoder_and_tunes_again(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tmp_path, model)
    workspace = journey.workspace(config)

    def killed(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(tuned, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            journey.pairs(config)
    assert workspace.finished(tuned.STAGE) == []
    made(config)
    assert len(workspace.finished(tuned.STAGE)) == 1


COLD: dict[str, Any] = {"val_share": 0.15, "test_share": 0.15}
SPLITS: list[dict[str, Any]] = [
    {"kind": "leave_last_out"},
    {"kind": "leave_last_n", "num_val": 1, "num_test": 2},
    {"kind": "time"},
    {"kind": "cold_users", **COLD},
    {"kind": "cold_items", **COLD},
    {"kind": "column"},
]


@pytest.mark.parametrize("split", SPLITS, ids=lambda split: str(split["kind"]))
def test_what_is_held_out_does_not_reach_the_encoder(split: dict[str, Any], model: Path, tmp_path: Path) -> None:
    builders.write_log(tmp_path / "log")
    tree = tree_of(tmp_path, model)
    tree["pairs"]["split"] = split
    if split["kind"] == "column":
        tree["logs"][0]["columns"] = {"split": "split"}
    config = config_file.check(tree)
    log = tmp_path / "log" / "events.parquet"
    table = pq.read_table(log)
    held = held_out(table, config)
    assert 20 < held.sum() < len(held) - 20
    if split["kind"] == "column":
        table = table.append_column("split", pa.array(np.where(held, "test", "train")))
    pq.write_table(table, log)
    before = named(tune_tasks.read(work_of(config)))
    assert len(before) > 50
    items = table["item_id"].to_numpy().copy()
    others = np.unique(items[held]) if split["kind"] == "cold_items" else np.unique(items)
    places = np.searchsorted(others, items[held])
    items[held] = others[(places + 7) % len(others)]  # any other item, and a cold one for a cold one
    assert (items != table["item_id"].to_numpy()).sum() == held.sum()
    pq.write_table(table.set_column(1, "item_id", pa.array(items)), log)
    assert named(tune_tasks.read(work_of(config))) == before
    pq.write_table(table.set_column(1, "item_id", pa.array(np.where(held, items, items[::-1]))), log)
    assert named(tune_tasks.read(work_of(config))) != before


def held_out(table: pa.Table, config: Config) -> Any:
    """Of each event, whether it is of validation or test, or of a cold user; by the words of the config alone."""
    user, item, time = (table[name].to_numpy() for name in ("user_id", "item_id", "timestamp"))
    split = config.pairs.split
    after = np.array([(time[user == one] > when).sum() for one, when in zip(user, time, strict=True)])
    if split.kind in ("leave_last_out", "leave_last_n", "column"):
        return after < (3 if split.kind == "leave_last_n" else 2)
    if split.kind == "time":
        return time >= np.sort(time)[int(len(time) * 0.8) + 2]  # the last fifth, whatever the rounding
    if split.kind == "cold_users":
        return splits.cold_parts(pa.array(user), split, config.seed) != splits.TRAIN
    assert split.kind == "cold_items"
    return splits.cold_parts(pa.array(item), split, config.seed) != splits.TRAIN


@pytest.mark.parametrize("incremental", [False, True])
def test_events_of_one_moment_are_of_the_same_parts_for_the_encoder_and_for_the_towers(
    incremental: bool, model: Path, tmp_path: Path
) -> None:
    builders.write_log(tmp_path / "log")
    tree = tree_of(tmp_path, model)
    tree["pairs"]["incremental"] = incremental
    config = config_file.check(tree)
    log, items = tmp_path / "log" / "events.parquet", tmp_path / "log" / "items.parquet"
    table, catalogue = pq.read_table(log), pq.read_table(items)
    step = table["timestamp"].to_numpy() % 1000
    time = table["timestamp"].to_numpy() - step + step // 4  # four events at a moment
    pq.write_table(table.set_column(2, "timestamp", pa.array(time)), log)
    pq.write_table(catalogue.slice(15), items)
    first = config_encode.before(config)
    assert first is not None
    earlier = journey.pairs(first).version  # a workspace in which later items have the first rows
    pq.write_table(catalogue, items)
    last = journey.pairs(config).version
    plain = ray_tune.pairs(config, journey.workspace(config))
    assert plain is not None
    assert plain.name not in (earlier.name, last.name)
    for path, _ in Pairs.of(last).files("train"):
        assert (
            tables.read(last.store, path)
            .drop_columns("user_row")
            .equals(tables.read(plain.store, path).drop_columns("user_row"))
        )
    assert Pairs.of(last).vocabulary()["item"].to_pylist()[0] == builders.FIRST_ITEM + 15


def test_a_pair_has_two_items_with_different_words_and_only_so_many_are_drawn(model: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, model)
    items = tmp_path / "log" / "items.parquet"
    table = pq.read_table(items)
    titles = ["" if row % 3 == 0 else "Item tea" if row % 3 == 1 else None for row in range(len(table))]
    categories = ["" if row % 3 == 0 else f"rope {row}" if row % 5 else "lamp" for row in range(len(table))]
    table = table.set_column(1, "title", pa.array(titles)).set_column(2, "category", pa.array(categories))
    pq.write_table(table, items)
    words, pairs = tune_tasks.read(work_of(config))
    assert len(set(words)) == len(words)
    assert "" not in words
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert set(pairs.ravel().tolist()) == set(range(len(words)))
    few = config_of(tmp_path, model, max_pairs=9)
    assert 0 < len(tune_tasks.read(work_of(few))[1]) <= 9
    assert set(named(tune_tasks.read(work_of(few)))) <= set(named((words, pairs)))
    without = work_of(config)
    encoding = without.chosen.model_copy(update={"missing": 0.5})
    some = replace(without, items=without.items.model_copy(update={"encode": (encoding,)}))
    assert set(tune_tasks.read(some)[0]) == {word for word in words if not tasks.left_out(word, encoding)}


def test_a_log_whose_users_met_no_two_items_with_words_is_refused(model: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, model)
    items = tmp_path / "log" / "items.parquet"
    table = pq.read_table(items)
    nothing = pa.array([None] * len(table), pa.string())
    pq.write_table(table.set_column(1, "title", nothing).set_column(2, "category", nothing), items)
    with pytest.raises(InputError, match=r"items\.encode\.0\.fine_tune: in training no user met two items with diff"):
        journey.pairs(config)


def test_more_layers_than_there_are_are_refused_before_anything_is_made(model: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, model, layers=3)
    with pytest.raises(InputError, match=r"items\.encode\.0\.fine_tune\.layers=3, and .* has 2: train 2 of them or"):
        journey.pairs(config)
    assert journey.workspace(config).finished("pairs") == []


def test_a_projection_is_refused_at_the_door(tmp_path: Path, model: Path) -> None:
    tree = tree_of(tmp_path, model)
    tree["items"]["encode"][0]["model"] = "projection"
    with pytest.raises(
        ConfigError, match=r"items\.encode\.0\.fine_tune trains the layers of a transformer, and model="
    ):
        config_file.check(tree)


def test_an_encoder_that_was_altered_or_is_of_another_model_is_not_used(model: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, model)
    version = made(config)
    assert config.items is not None
    chosen = config.items.encode[0]
    other = tiny_transformer.save(tmp_path / "other", WORDS, seed=1)
    with pytest.raises(InputError, match=r"f\.model=.* has fingerprint .*, and encoder .* was tuned from"):
        tuned.encoder(version, chosen.model_copy(update={"model": str(other)}), "f")
    content = version.store.read(tuned.FILE)
    version.store.write(tuned.FILE, content[:-4] + b"\0\0\0\1")
    with pytest.raises(CorruptRelease, match=tuned.FILE):
        tuned.encoder(version, chosen, "f")


def test_layers_that_do_not_fit_the_model_are_refused(model: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, model)
    assert config.items is not None
    chosen = config.items.encode[0]
    weights = st.load(made(config).store.read(tuned.FILE))
    with pytest.raises(LookupError):
        encoders.load(chosen, "f", layers={f"7.{name[2:]}": value for name, value in weights.items()})
    with pytest.raises(RuntimeError, match="Missing key"):
        encoders.load(chosen, "f", layers=dict(list(weights.items())[1:]))
