"""Injected features that know the future are found by name, and honest ones are left alone."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raycl import config_file, journey
from raycl.config import Feature
from raycl.data.features import Encoders
from raycl.evaluation import feature_leaks
from raycl.evaluation.feature_leaks import Held
from tests import tiny as builders

NUM_USERS, NUM_ITEMS, CONTEXT = 3_000, 400, 12


@pytest.fixture(scope="module")
def held() -> Held:
    """Users of three countries, each with a taste of its own; popularity drifts from the past to the targets."""
    generator = np.random.default_rng(0)
    shares = generator.exponential(size=(3, NUM_ITEMS)) / (1.0 + np.arange(NUM_ITEMS))
    now = shares * generator.uniform(0.5, 1.5, NUM_ITEMS)
    users, items, targets = [], [], []
    for user in range(NUM_USERS):
        drawn = [generator.choice(NUM_ITEMS, CONTEXT, p=shares[user % 3] / shares[user % 3].sum())]
        drawn.append(generator.choice(NUM_ITEMS, 1, p=now[user % 3] / now[user % 3].sum()))
        users.append(np.full(CONTEXT + 1, user))
        items.append(np.concatenate(drawn))
        targets.append(np.arange(CONTEXT + 1) == CONTEXT)
    return Held(*map(np.concatenate, (users, items, targets)))


def users_found(held: Held, column: list[object], kind: str = "categorical") -> dict[str, str]:
    table = pa.table({"feature": column})
    encoders = Encoders.fit((Feature(column="feature", kind=kind),), table)  # type: ignore[arg-type]
    return feature_leaks.of_users(held, encoders, encoders.encode(table), NUM_ITEMS)


def target_of(held: Held) -> list[int]:
    return [int(item) for item in held.part(targets=True)[1]]


def test_a_feature_that_is_made_of_the_target_is_found(held: Held) -> None:
    found = users_found(held, [f"shelf {target % 40}" for target in target_of(held)])
    assert set(found) == {"users.feature"}
    assert "the targets of other users of the same value find" in found["users.feature"]


def test_a_number_that_is_made_of_the_target_is_found(held: Held) -> None:
    shelves = np.random.default_rng(1).permutation(NUM_ITEMS)
    assert users_found(held, [float(shelves[target]) for target in target_of(held)], "numeric")


def test_honest_features_of_users_are_left_alone(held: Held) -> None:
    """A country with a taste of its own, what a user met last and most, chance, and a value that each has alone."""
    items = held.item.reshape(NUM_USERS, CONTEXT + 1)
    generator = np.random.default_rng(2)
    for column, kind in (
        ([f"country {user % 3}" for user in range(NUM_USERS)], "categorical"),
        ([f"last {row[-2] % 40}" for row in items], "categorical"),
        ([float(np.median(row[:-1])) for row in items], "numeric"),
        (generator.normal(size=NUM_USERS).tolist(), "numeric"),
        ([f"user {user}" for user in range(NUM_USERS)], "categorical"),
        ([None] * NUM_USERS, "categorical"),
    ):
        assert users_found(held, list(column), kind) == {}


def items_found(held: Held, column: np.ndarray, transform: str = "standard") -> dict[str, str]:
    table = pa.table({"feature": column.astype(np.float64)})
    feature = Feature(column="feature", kind="numeric", transform=transform)  # type: ignore[arg-type]
    encoders = Encoders.fit((feature,), table)
    counts = np.bincount(held.part(targets=False)[1], minlength=NUM_ITEMS)
    return feature_leaks.of_items(held, encoders, encoders.encode(table), counts)


@pytest.mark.parametrize("transform", ["standard", "log"])
def test_counts_that_hold_the_held_out_events_are_found(held: Held, transform: str) -> None:
    found = items_found(held, np.bincount(held.item, minlength=NUM_ITEMS), transform)
    assert set(found) == {"items.feature"}
    assert "given the training events it follows the number of held-out ones" in found["items.feature"]


def test_honest_numbers_of_items_are_left_alone(held: Held) -> None:
    generator = np.random.default_rng(3)
    counts = np.bincount(held.part(targets=False)[1], minlength=NUM_ITEMS)
    for column in (counts, generator.normal(size=NUM_ITEMS), 1.0 / (1.0 + np.arange(NUM_ITEMS)), np.ones(NUM_ITEMS)):
        assert items_found(held, np.asarray(column, dtype=np.float64)) == {}


def test_the_stage_names_a_feature_from_the_future(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The user table knows the shelf of each user's last item."""
    folder = tmp_path_factory.mktemp("future")
    (folder / "log").mkdir()
    generator = np.random.default_rng(4)
    items = generator.integers(0, 200, (150, 6))
    log = {
        "user_id": np.repeat(np.arange(150), 6),
        "item_id": items.ravel(),
        "timestamp": 1_700_000_000 + np.arange(items.size),
    }
    pq.write_table(pa.table(log), folder / "log" / "events.parquet")
    known = {"user_id": np.arange(150), "shelf": [f"shelf {row[-1] // 10}" for row in items], "luck": ["a", "b"] * 75}
    pq.write_table(pa.table(known), folder / "log" / "users.parquet")
    tree = builders.tiny_tree(folder)
    tree["items"] = None
    tree["users"] = {
        "uri": str(folder / "log" / "users.parquet"),
        "features": [{"column": "shelf"}, {"column": "luck"}],
    }
    tree["train"]["epochs"] = 1
    tree["evaluation"] |= {"baselines": {"names": []}, "perturbed_share": 0.0, "auc": False}
    config = config_file.check(tree)
    journey.pairs(config)
    journey.train(config, lambda _: None)
    assert list(journey.evaluate(config).version.manifest.facts["suspects"]) == ["users.shelf"]
