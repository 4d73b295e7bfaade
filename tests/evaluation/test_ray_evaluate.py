"""The stage on Ray against one process that ranks the catalogue for one user at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from raycl import journey, lineage
from raycl.config import Config
from raycl.data import reader
from raycl.data.handoff import Pairs
from raycl.errors import InputError
from raycl.evaluation.tasks import item_features, user_vectors
from raycl.model import embed, weights
from raycl.storage import tables
from raycl.storage.store import Store
from tests import tiny as builders
from tests.evaluation import naive


def truth(config: Config) -> dict[str, dict[str, float]]:
    """Metrics of towers and popularity from the vectors of every test user, ranked one by one."""
    towers = lineage.towers(config, journey.workspace(config)).store
    pairs = Pairs.of(lineage.pairs(config, journey.workspace(config)))
    items = embed.items(weights.load_item(towers), item_features(pairs))
    counts = pairs.train_counts().tolist()
    ranked: dict[str, list[list[int]]] = {"towers": [], "popularity": []}
    targets = []
    for path, _ in pairs.files("test"):
        rows = tables.read(pairs.store, path).to_pylist()
        vectors = user_vectors(pairs, towers, reader.read(pairs.store, [path]))
        for row, vector in zip(rows, vectors, strict=True):
            context = set(row["items"][: row["first_target"]])
            targets.append(set(row["items"][row["first_target"] :]) - context)
            ranked["towers"].append(naive.rank((items @ vector).tolist(), context))
            ranked["popularity"].append(naive.rank(counts, context))
    ks = config.evaluation.ks
    return {name: naive.summary(lists, targets, ks, len(items)) for name, lists in ranked.items()}


def test_the_stage_equals_one_process(tiny: Config) -> None:
    version = lineage.evaluation(tiny, journey.workspace(tiny))
    expected = truth(tiny)
    assert version.manifest.counts == {"users": builders.NUM_USERS}
    for name in ("towers", "popularity"):
        assert version.manifest.facts[name] == pytest.approx(expected[name], abs=1e-6)
    assert version.manifest.inputs["towers"] == lineage.towers(tiny, journey.workspace(tiny)).name


def test_a_finished_evaluation_is_found_again_and_force_makes_a_new_one(tiny: Config, tmp_path: Path) -> None:
    config = builders.copied(tiny, tmp_path)
    first = journey.evaluate(config)
    assert not first.worked
    again = journey.evaluate(config, force=True)
    assert again.worked
    assert again.version.name != first.version.name
    assert again.version.manifest.facts == first.version.manifest.facts


def test_other_cuts_are_another_evaluation(tiny: Config, tmp_path: Path) -> None:
    """A k beyond the catalogue finds everything, whichever the block."""
    config = builders.changed(builders.copied(tiny, tmp_path), "evaluation", ks=[500], users_per_block=1)
    outcome = journey.evaluate(config)
    assert outcome.worked
    assert outcome.version.manifest.facts["towers"]["recall_at_500"] == 1.0
    assert outcome.version.manifest.facts["towers"]["coverage_at_500"] == 1.0


def test_a_test_part_with_nothing_to_find_is_refused(ray_local: None, tmp_path: Path) -> None:
    """Everybody's last event repeats an item that they met before."""
    builders.write_log(tmp_path / "log")
    log = tables.read(Store(str(tmp_path)), "log/events.parquet")
    users = log["user_id"].to_numpy()
    items = log["item_id"].to_numpy().copy()
    lasts = np.flatnonzero(np.diff(users, append=-1))
    items[lasts] = items[lasts - 2]
    tables.write(Store(str(tmp_path)), "log/events.parquet", log.set_column(1, "item_id", [items]))
    config = builders.tiny_config(tmp_path)
    journey.pairs(config)
    journey.train(config, lambda _: None)
    with pytest.raises(InputError, match=r"no user with an item to find: look at pairs\.split"):
        journey.evaluate(config)
