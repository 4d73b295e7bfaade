"""Mined negatives on an embedded Ray: from the towers before, by the ids of their items, and told in the manifest."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raycl import journey, lineage
from raycl.config import Config
from raycl.config_loss import Mined
from raycl.data.handoff import Pairs
from raycl.model import embed, inputs, weights
from raycl.storage.versions import Version
from raycl.training import mining
from tests.tiny import NUM_ITEMS, changed, tiny_config, write_log

MINED = {"per_pair": 2, "pool": 4, "range_min": 1, "range_max": 12}


@pytest.fixture
def made(ray_local: None, tmp_path: Path) -> Config:
    """Finished pairs, and a config that asks for mined negatives."""
    write_log(tmp_path / "log")
    config = changed(tiny_config(tmp_path), "loss", negatives={"mined": MINED})
    journey.pairs(config)
    return config


def train(config: Config) -> Version:
    return journey.train(config, lambda _: None).version


def test_the_first_run_goes_without_and_the_next_one_is_mined_from_it(
    made: Config, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        first = train(made)
    assert "there are no towers yet to mine from, so these are trained without" in caplog.text
    assert first.manifest.facts["mined"] == {"from": None, "items": 0}
    assert set(first.manifest.inputs) == {"pairs"}
    assert mining.load(first.store) is None

    second = train(changed(made, "train", learning_rate=0.01))
    assert second.manifest.facts["mined"] == {"from": first.name, "items": NUM_ITEMS}
    assert second.manifest.inputs["mined_from"] == first.name
    pools = mining.load(second.verified(mining.FOLDER).store)
    assert pools is not None
    pairs = Pairs.of(lineage.pairs(made, journey.workspace(made)))
    features = inputs.from_table(pairs.encoded("items"), pairs.encoders("items"), pairs.num_items)
    vectors = embed.items(weights.load_item(first.store), features)
    expected = mining.mine(
        vectors, np.arange(NUM_ITEMS), np.arange(NUM_ITEMS), Mined(**MINED), np.random.default_rng([made.seed, 4, 0])
    )
    assert pools.tolist() == expected.tolist()
    assert train(changed(made, "train", learning_rate=0.01)) == second


def test_mined_negatives_change_what_is_trained(made: Config) -> None:
    train(made)
    mined = journey.train(made, lambda _: None, force=True).version
    assert mined.manifest.facts["mined"]["items"] == NUM_ITEMS
    without = journey.train(changed(made, "loss", negatives={}), lambda _: None).version
    assert without.manifest.facts["mined"] is None
    assert mined.manifest.facts["losses"] != without.manifest.facts["losses"]


def test_items_are_known_by_their_ids_and_what_the_towers_do_not_know_has_no_vector(
    made: Config, tmp_path: Path
) -> None:
    first = train(made)
    for name in ("events", "items"):  # items 101 to 105 go, and 131 comes, so the rows are other ones
        path = tmp_path / "log" / f"{name}.parquet"
        table = pq.read_table(path)
        ids = table["item_id"].to_numpy()
        table = table.filter(pa.array(ids > 105))
        table = table.set_column(
            table.column_names.index("item_id"), "item_id", pa.array(np.where(ids == 130, 131, ids)[ids > 105])
        )
        pq.write_table(table, path)
    other = changed(made, "pairs", max_history=4)
    journey.pairs(other)
    pairs = Pairs.of(lineage.pairs(other, journey.workspace(other)))
    before = mining.previous(journey.workspace(other), pairs)
    assert before is not None
    assert before.name == first.name
    ids = pairs.vocabulary()["item"].to_pylist()
    old = Pairs.of(lineage.pairs(made, journey.workspace(made)))
    features = inputs.from_table(old.encoded("items"), old.encoders("items"), old.num_items)
    vectors = embed.items(weights.load_item(first.store), features)
    places = {item: row for row, item in enumerate(old.vocabulary()["item"].to_pylist())}
    assert 131 in ids
    for item, vector in zip(ids, before.vectors, strict=True):
        if item == 131:
            assert np.isnan(vector).all()
        else:
            np.testing.assert_array_equal(vector, vectors[places[item]])


def test_towers_that_cannot_be_read_are_passed_over(made: Config, caplog: pytest.LogCaptureFixture) -> None:
    first = train(made)
    second = train(changed(made, "train", learning_rate=0.01))
    second.store.write(weights.ITEM_FILE, b"nothing")
    workspace = journey.workspace(made)
    pairs = Pairs.of(lineage.pairs(made, workspace))
    with caplog.at_level(logging.WARNING):
        found = mining.previous(workspace, pairs)
    assert found is not None
    assert found.name == first.name
    assert f"towers {second.name} are passed over" in caplog.text
