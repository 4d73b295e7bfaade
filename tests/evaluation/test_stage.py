"""Every number that the stage tells, by model and segment, against loops over users; and what it refuses to measure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import safetensors.torch as st
import torch

from raycl import journey, lineage, schema
from raycl.config import Config
from raycl.data import reader
from raycl.data.handoff import Pairs
from raycl.errors import ConfigError, CorruptRelease, RayclError
from raycl.evaluation import baseline_choice, baselines, stage, tasks
from raycl.evaluation.comparison import Evaluation
from raycl.evaluation.tasks import item_features, user_vectors
from raycl.model import embed, weights
from raycl.storage import tables
from raycl.storage.store import Store
from tests import tiny as builders
from tests.data.builders import packed
from tests.evaluation import naive

CATEGORIES = ("tea", "rope", "lamp")


@pytest.fixture(scope="module")
def config(tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The tiny workspace with everything that an evaluation can be asked for."""
    asked = {"user_columns": ["country"], "item_columns": ["category"], "calibration": "category"}
    return builders.changed(builders.copied(tiny, tmp_path_factory.mktemp("stage")), "evaluation", **asked)


@pytest.fixture(scope="module")
def found(config: Config) -> Evaluation:
    return Evaluation(journey.evaluate(config).version)


class User:
    """One test user, and every model's scores of all items."""

    def __init__(self, row: Any, scores: dict[str, list[float]]) -> None:
        self.raw = row.user
        self.context = list(row.items[: row.first_target])
        self.targets = set(row.items[row.first_target :]) - set(self.context)
        self.scores = scores
        self.country = builders.COUNTRIES[(row.user - 1) % 3] if row.user <= builders.NUM_USERS - 2 else "unknown"


def best_beta(events: baselines.Events, config: Config) -> float:
    settings = config.evaluation
    asked = baseline_choice.questions(events.user, events.item, events.time_ms, events.num_items, settings.seed)
    return baselines.best_beta(asked, settings.baselines)


def users_of(config: Config) -> tuple[list[User], np.ndarray, list[int]]:
    """The users, the item vectors and the training counts."""
    towers = lineage.towers(config, journey.workspace(config)).store
    pairs = Pairs.of(lineage.pairs(config, journey.workspace(config)))
    items = embed.items(weights.load_item(towers), item_features(pairs))
    counts = pairs.train_counts().tolist()
    events = tasks.training_events(pairs, ~pairs.retired())
    chosen = config.evaluation.baselines
    near = {
        "item_knn": baselines.cosine_neighbours(events.table(), chosen.neighbours).toarray(),
        "rp3beta": baselines.rp3beta(events.table(), chosen.neighbours, 1.0, best_beta(events, config)).toarray(),
    }
    recent = baselines.recent_counts(events, chosen.recent_share).tolist()
    made = []
    for path, _ in pairs.files("test"):
        rows = packed(tables.read(pairs.store, path), "test")
        vectors = user_vectors(pairs, towers, reader.read(pairs.store, [path], "test"), "test")
        for row, vector in zip(rows, vectors, strict=True):
            context = sorted(set(row.items[: row.first_target]))
            scores = {"towers": (items @ vector).tolist(), "popularity": counts, "recent_popularity": recent}
            scores |= {name: table[context].sum(0).tolist() for name, table in near.items()}
            made.append(User(row, scores))
    return made, items, counts


def segments_of(user: User, counts: list[int]) -> dict[str, set[int]]:
    """By segment that the user is of, the targets that count in it."""
    age = "old" if len(user.context) >= 5 else "new"
    found = {"all": user.targets, f"users.age={age}": user.targets, f"users.country={user.country}": user.targets}
    order = sorted(range(len(counts)), key=lambda row: (-counts[row], row))
    before = {row: sum(counts[one] for one in order[:place]) / sum(counts) for place, row in enumerate(order)}
    for item in user.targets:
        share = before[item]
        part = "tail" if share >= 0.8 or not counts[item] else "middle" if share >= 0.5 else "head"
        for name in (
            f"items.popularity={part}",
            f"items.age={'old' if counts[item] >= 5 else 'new'}",
            f"items.category={CATEGORIES[item % 3]}",
        ):
            found.setdefault(name, set()).add(item)
    return found


def truth(config: Config) -> dict[tuple[str, str, str], float]:
    """Mean over users by model, segment and metric."""
    users, vectors, counts = users_of(config)
    genres = [[CATEGORIES[row % 3]] for row in range(len(counts))]
    gathered: dict[tuple[str, str, str], list[float]] = {}
    for user in users:
        for model, scores in user.scores.items():
            ranked = naive.rank(scores, set(user.context))
            for segment, targets in segments_of(user, counts).items():
                values = {"auc": naive.auc(scores, targets, set(user.context) | (user.targets - targets))}
                for k in config.evaluation.ks:
                    values |= naive.metrics_of_user(ranked, targets, k)
                    if not segment.startswith("items."):
                        listed = ranked[:k]
                        values |= {
                            f"novelty_at_{k}": naive.novelty(listed, counts),
                            f"popularity_at_{k}": sum(counts[item] for item in listed) / len(listed),
                            f"diversity_at_{k}": naive.diversity(listed, vectors.tolist()),
                            f"calibration_at_{k}": naive.calibration(listed, user.context, genres),
                        }
                for name, value in values.items():
                    gathered.setdefault((model, segment, name), []).append(value)
    return {key: sum(values) / len(values) for key, values in gathered.items()}


def test_every_model_segment_and_metric_equals_loops_over_users(config: Config, found: Evaluation) -> None:
    expected = truth(config)
    models = {model for model, _, _ in expected}
    rows = found.metrics.filter(pl.col("model").is_in(models) & pl.col("low").is_not_null()).to_dicts()
    measured = {(row["model"], row["segment"], row["metric"]): row["value"] for row in rows}
    assert set(measured) == set(expected)
    assert measured == pytest.approx(expected, abs=1e-5)


def test_intervals_hold_the_value_and_everything_is_measured(found: Evaluation) -> None:
    assert found.models == (
        "towers",
        "towers_dropped_history",
        "towers_noisy_history",
        "popularity",
        "recent_popularity",
        "item_knn",
        "rp3beta",
        "als",
    )
    rows = found.metrics.filter(pl.col("low").is_not_null() & (pl.col("segment") == "all"))
    assert rows.filter((pl.col("low") > pl.col("value")) | (pl.col("high") < pl.col("value"))).height == 0
    assert rows.filter(pl.col("users") != builders.NUM_USERS).height == 0
    spread = found.metrics.filter(pl.col("low").is_null())
    assert set(spread["metric"]) == {f"{name}_at_{k}" for name in ("coverage", "gini") for k in (3, 10)}


def test_each_user_has_a_row_for_each_segment_of_the_targets(config: Config, found: Evaluation) -> None:
    users, _, counts = users_of(config)
    frame = found.users("item_knn")
    expected = {
        (user.raw, name.removeprefix("items."), len(targets))
        for user in users
        for name, targets in segments_of(user, counts).items()
        if not name.startswith("users.")
    }
    assert set(frame.select("user", "items", "num_targets").rows()) == expected
    assert frame.height == len(expected)
    with pytest.raises(ConfigError, match=r"model=knn is not in .*: use one of towers, "):
        found.users("knn")


def test_histories_with_something_wrong_are_measured_by_the_same_towers(tiny: Config, tmp_path: Path) -> None:
    """With nothing left of them, all users look alike; with nothing wrong, they are as they were."""
    asked = {"resamples": 100, "baselines": {"names": []}, "auc": False}
    config = builders.changed(builders.copied(tiny, tmp_path), "evaluation", perturbed_share=1.0, **asked)
    facts = journey.evaluate(config).version.manifest.facts
    assert facts["models"] == ["towers", "towers_dropped_history", "towers_noisy_history", "popularity"]
    assert facts["towers_dropped_history"] != facts["towers"]
    assert facts["towers_noisy_history"] != facts["towers"]
    assert "auc" not in facts["towers"]


def test_the_index_is_measured_beside_the_exact_lists(tiny: Config, tmp_path: Path) -> None:
    """A flat index finds what exact ranking finds."""
    config = builders.copied(tiny, tmp_path)
    outcome = journey.evaluate(config, index=True)
    assert outcome.worked
    facts = outcome.version.manifest.facts
    exact = {name: value for name, value in facts["towers"].items() if name != "auc"}
    assert facts["index"] == pytest.approx(exact)
    assert outcome.version.manifest.inputs["release"] == lineage.release(config, journey.workspace(config)).name
    assert not journey.evaluate(config).worked  # which is the one that the release was judged by


def test_ratings_are_predicted_where_the_towers_were_trained_to(tiny: Config, tmp_path: Path) -> None:
    config = builders.changed(builders.copied(tiny, tmp_path), "loss", terms=["softmax", "rating"])
    config = builders.changed(config, "train", epochs=1)
    config = builders.changed(config, "evaluation", resamples=100, baselines={"names": []})
    journey.train(config, lambda _: None)
    facts = journey.evaluate(config).version.manifest.facts
    users, _, _ = users_of(config)
    errors = []
    for user in users:
        for target in user.targets:
            cosine = user.scores["towers"][target]  # every event weighs 1, on a scale from 0 to 5
            errors.append(((cosine + 1.0) / 2.0 * 5.0 - 1.0) ** 2)
    assert facts["towers"]["rmse"] == pytest.approx(float(np.sqrt(np.mean(errors))), abs=1e-5)
    assert "rmse" not in facts["popularity"]


def test_a_log_with_too_many_events_leaves_the_baselines_out_and_says_so(tiny: Config, tmp_path: Path) -> None:
    asked = {"resamples": 100, "perturbed_share": 0.0, "baselines": {"most_events": 7}}
    facts = journey.evaluate(
        builders.changed(builders.copied(tiny, tmp_path), "evaluation", **asked)
    ).version.manifest.facts
    assert facts["models"] == ["towers", "popularity"]
    assert set(facts["left_out"]) == {"recent_popularity", "item_knn", "rp3beta", "als"}
    assert "training events are more than evaluation.baselines.most_events=7" in facts["left_out"]["als"]


def refusal(tiny: Config, folder: Path, change: Callable[[Config], None], error: type[RayclError]) -> str:
    """What an evaluation says after ``change`` to a copy of the workspace; its checksums are taken anew."""
    config = builders.copied(tiny, folder)
    config = builders.changed(config, "evaluation", resamples=100, baselines={"names": []})
    change(config)
    with pytest.raises(error) as told:
        journey.evaluate(config)
    return str(told.value)


def replaced(store: Store, path: str, content: bytes) -> None:
    """The file with this content, and the manifest as if it had been made so."""
    import hashlib
    import json

    plain = json.loads(store.read("manifest.json"))
    plain["checksums"][path] = hashlib.sha256(content).hexdigest()
    plain["sizes"][path] = len(content)
    store.write(path, content)
    (Path(store.uri) / "manifest.json").write_text(json.dumps(plain))


def with_nan(side: str) -> Callable[[Config], None]:
    def change(config: Config) -> None:
        store = lineage.towers(config, journey.workspace(config)).store
        path = {"item": weights.ITEM_FILE, "user": weights.USER_FILE}[side]
        state = st.load(store.read(path))
        for name, tensor in state.items():
            if tensor.is_floating_point():
                state[name] = torch.full_like(tensor, torch.nan)
        replaced(store, path, st.save(state))

    return change


@pytest.mark.parametrize(
    ("side", "told"),
    [("item", "30 of 30 item vectors of towers"), ("user", "user vectors are not finite, one of them of user")],
)
def test_vectors_that_are_not_numbers_are_told_with_one_of_them(
    tiny: Config, tmp_path: Path, side: str, told: str
) -> None:
    found = refusal(tiny, tmp_path, with_nan(side), RayclError)
    assert told in found
    assert "lower train.learning_rate and train again" in found


def sequences_changed(change: Callable[[list[dict[str, Any]]], None]) -> Callable[[Config], None]:
    """A change to the rows of every file of sequences."""

    def everywhere(config: Config) -> None:
        store = lineage.pairs(config, journey.workspace(config)).store
        for number in range(2):
            path = schema.sequences_file(number)
            table = tables.read(store, path)
            rows = table.to_pylist()
            change(rows)
            sink = pa.BufferOutputStream()
            import pyarrow.parquet as pq

            pq.write_table(pa.Table.from_pylist(rows, table.schema), sink)
            replaced(store, path, sink.getvalue().to_pybytes())

    return everywhere


def test_items_that_the_vocabulary_has_not_are_told(tiny: Config, tmp_path: Path) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[0]["items"][-1] = 77

    found = refusal(tiny, tmp_path, sequences_changed(change), CorruptRelease)
    assert "holds 1 events of items that are not in the catalogue of 30 items, one of row 77" in found


def test_test_rows_in_training_are_found_and_named(tiny: Config, tmp_path: Path) -> None:
    """Each user's test event stands among the training events too."""

    def change(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            for name in ("items", "weights", "times_ms"):
                row[name].insert(row["val_from"], row[name][-1])
            row["val_from"] += 1
            row["test_from"] += 1

    found = refusal(tiny, tmp_path, sequences_changed(change), RayclError)
    assert "leaks: train_after_val" in found
    assert "target_in_its_history" in found
    assert "cases, one of them of user" in found


def test_a_target_inside_its_history_is_found_and_named(tiny: Config, tmp_path: Path) -> None:
    """Each user's first event is as late as the test target, so that a history would hold the target's time."""

    def change(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["items"][0], row["times_ms"][0] = row["items"][-1], row["times_ms"][-1]

    assert "target_in_its_history" in refusal(tiny, tmp_path, sequences_changed(change), RayclError)


def test_towers_of_another_version_of_the_pairs_are_refused(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pairs, "num_items", 31)
    config = builders.changed(builders.copied(tiny, tmp_path), "evaluation", baselines={"names": []})
    with pytest.raises(CorruptRelease, match=r"know 30 items and pairs .* have 31: they were not made together"):
        journey.evaluate(config)


def test_a_column_that_the_table_has_not_is_told_with_its_field(tiny: Config, tmp_path: Path) -> None:
    for field, value in (("user_columns", ["town"]), ("item_columns", ["town"]), ("calibration", "town")):
        config = builders.changed(builders.copied(tiny, tmp_path / field), "evaluation", **{field: value})
        with pytest.raises(RayclError, match="has no column 'town'"):
            journey.evaluate(config)


def test_files_are_summed_in_at_most_so_many_groups() -> None:
    groups = stage.Measured([0, 2, 5, 6], ["towers"], 9).groups(3.0)
    assert sorted(number for group in groups for number in group) == [0, 2, 5, 6]
    assert len(groups) == 3
    assert stage.Measured([4], ["towers"], 1).groups(0.5) == [[4]]
