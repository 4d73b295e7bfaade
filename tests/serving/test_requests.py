"""What a request carries, from the log through training and evaluation to an answer: context and times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raycl import config_file, journey, lineage
from raycl.config import Config
from raycl.data import reader, states
from raycl.data.handoff import Pairs
from raycl.errors import InputError
from raycl.evaluation.tasks import item_features, user_features
from raycl.index import release
from raycl.model import embed, weights
from raycl.model.users import UserSide
from raycl.serving.api import Query
from raycl.serving.retriever import Retriever
from raycl.storage.store import Store
from raycl.training import context

NUM_USERS, EVENTS, OF_A_DEVICE = 120, 8, 12
DEVICES = ("phone", "desk", "car", "watch")
K = 10
NOW = 1_800_000_000.0


def tree(folder: Path) -> dict[str, Any]:
    """A log in which the device of an event says which dozen of 48 items it is of, and nothing else says it."""
    generator = np.random.default_rng(3)
    rows = [
        (user, int(device), int(generator.integers(OF_A_DEVICE)), 1_700_000_000 + 5_000 * place + user)
        for user in range(NUM_USERS)
        for place, device in enumerate(generator.integers(0, len(DEVICES), EVENTS))
    ]
    events = {
        "user_id": [user for user, *_ in rows],
        "item_id": [100 + device * OF_A_DEVICE + item for _, device, item, _ in rows],
        "timestamp": [time for *_, time in rows],
        "device": [DEVICES[device] for _, device, *_ in rows],
        "hour": [float(time % 24) for *_, time in rows],
    }
    pq.write_table(pa.table(events), folder / "events.parquet")
    return {
        "workspace": str(folder / "workspace"),
        "logs": [{"uri": str(folder / "events.parquet"), "columns": {"context": ["device", "hour"]}}],
        "pairs": {"num_buckets": 2, "max_history": 5},
        "model": {"dim": 16, "hidden": [], "pooling": "transformer", "history_layers": 1},
        "train": {"epochs": 12, "global_batch_size": 64, "learning_rate": 0.02, "threads_per_worker": 1},
        "evaluation": {"ks": [K]},
        "index": {"num_shards": 1},
        "gate": {"index_recall_at": K},
    }


@pytest.fixture(scope="module")
def made(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Every stage up to the release, with towers that read the device and the hour."""
    folder = tmp_path_factory.mktemp("requests")
    config = config_file.check(
        tree(folder) | {"context": [{"column": "device"}, {"column": "hour", "kind": "numeric"}]}
    )
    journey.pairs(config)
    journey.train(config, lambda _: None)
    journey.evaluate(config)
    journey.index(config)
    return config


def recall(config: Config) -> float:
    facts = lineage.evaluation(config, journey.workspace(config)).manifest.facts
    return float(facts["towers"][f"recall_at_{K}"])


def test_a_target_that_depends_on_the_context_is_found_with_it_and_not_without(made: Config) -> None:
    bare = made.model_copy(update={"context": ()})
    journey.train(bare, lambda _: None)
    journey.evaluate(bare)
    assert recall(made) > 0.8
    assert recall(bare) < 0.4
    assert lineage.pairs(bare, journey.workspace(bare)) == lineage.pairs(made, journey.workspace(made))


def served(config: Config) -> Retriever:
    return Retriever.of(release.load(lineage.release(config, journey.workspace(config)).store))


def test_a_query_that_says_the_same_gets_what_evaluation_ranks(made: Config) -> None:
    workspace = journey.workspace(made)
    pairs, towers = Pairs.of(lineage.pairs(made, workspace)), lineage.towers(made, workspace).store
    retriever, side = served(made), UserSide.load(towers)
    items = embed.items(weights.load_item(towers), item_features(pairs))
    names = np.array(pairs.vocabulary()["item"].to_pylist())
    for path, _ in pairs.files("test"):
        asked = states.before_targets(reader.read(pairs.store, [path], "test", side.columns), pairs.rules, "test")
        vectors = side.vectors(asked, user_features(pairs))
        assert asked.age_s is not None
        queries = []
        for history, age_s, device, hour in zip(
            asked.history, asked.age_s, asked.context["device"], asked.context["hour"], strict=True
        ):
            known = np.flatnonzero(history >= 0)[::-1]
            queries.append(
                Query(
                    history=names[history[known]].tolist(),
                    times=[NOW - float(age) for age in age_s[known]],
                    time=NOW,
                    context={"device": device.as_py(), "hour": hour.as_py()},
                    k=len(names),
                    exclude_history=False,
                )
            )
        for answer, vector in zip(retriever.retrieve(queries), vectors, strict=True):
            scores = {item.item_id: item.score for item in answer.items}
            assert [scores[int(name)] for name in names] == pytest.approx((items @ vector).tolist(), abs=1e-5)


def test_training_hands_the_tower_what_evaluation_does(made: Config) -> None:
    """Of the same moment: the last training pair of each user, asked for as a state."""
    workspace = journey.workspace(made)
    pairs = Pairs.of(lineage.pairs(made, workspace))
    side = UserSide.load(lineage.towers(made, workspace).store)
    for path, _ in pairs.files("train"):
        sequences = reader.read(pairs.store, [path], "test", side.columns)
        asked = states.before_targets(sequences, pairs.rules, "test")
        batch = reader.batch(sequences, sequences.spans("test", pairs.rules).first, pairs.rules, with_ages=True)
        trained = states.States(batch.history, batch.user_row, batch.history_age_s, batch.context)
        features = user_features(pairs)
        np.testing.assert_array_equal(side.vectors(trained, features), side.vectors(asked, features))


def test_what_a_query_does_not_say_is_unknown_and_what_it_says_counts(made: Config) -> None:
    retriever = served(made)
    history: list[int | str] = [100, 113, 126]

    def best(**said: Any) -> list[int | str]:
        (answer,) = retriever.retrieve([Query(history=history, k=K, **said)])
        return [item.item_id for item in answer.items]

    def scores(**said: Any) -> list[float]:
        (answer,) = retriever.retrieve([Query(history=history, k=48, exclude_history=False, **said)])
        return [item.score for item in sorted(answer.items, key=lambda item: item.item_id)]

    for number, device in enumerate(DEVICES):
        first = 100 + number * OF_A_DEVICE
        found = best(context={"device": device})
        assert sum(first <= int(item) < first + OF_A_DEVICE for item in found) >= K - 2
    assert scores() == scores(context={"device": None}) == scores(context={"device": "fridge"})
    assert scores(times=[None, None, None]) == scores()
    assert scores(times=[NOW - 9e5, NOW - 60, NOW - 1], time=NOW) != scores()


def test_the_fitted_context_is_of_the_training_targets_and_goes_along(made: Config) -> None:
    workspace = journey.workspace(made)
    pairs = Pairs.of(lineage.pairs(made, workspace))
    device, hour = UserSide.load(lineage.towers(made, workspace).store).context.features
    assert sorted(device.values) == sorted(DEVICES)
    seen = []
    for path, _ in pairs.files("train"):
        sequences = reader.read(pairs.store, [path], "train", ["context_hour"])
        seen += np.array(sequences.context["hour"].to_pylist())[sequences.targets(pairs.rules)].tolist()
    assert (hour.mean, hour.deviation) == pytest.approx((np.mean(seen), np.std(seen)))
    bound = lineage.release(made, workspace).store
    assert bound.read("user_tower/context.json") == lineage.towers(made, workspace).store.read("context.json")


def test_a_column_that_is_not_of_its_kind_is_refused_by_name(made: Config, tmp_path: Path) -> None:
    pairs = Pairs.of(lineage.pairs(made, journey.workspace(made)))
    wrong = config_file.check(tree(tmp_path) | {"context": [{"column": "device", "kind": "numeric"}]})
    with pytest.raises(InputError, match="context: column 'device' is no numeric feature"):
        context.encoders(wrong.context, pairs, Store(str(tmp_path / "towers")))
    assert not Store(str(tmp_path / "towers")).exists("context.json")
