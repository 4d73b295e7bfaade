"""What can happen to the files of a release, and that none of it is served."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from raycl.config import Config
from raycl.data.features import Encoders
from raycl.errors import CorruptRelease
from raycl.index import nearest, release
from raycl.model import embed, inputs, weights
from raycl.storage.manifest import FILE, Manifest
from raycl.storage.store import Store
from tests import tiny as builders
from tests.index.builders import built, write_consistently

USER_TOWER = f"{release.USER_TOWER}/{weights.USER_FILE}"
ITEM_TOWER = f"{release.ITEM_TOWER}/{weights.ITEM_FILE}"


@pytest.fixture
def stored(tiny: Config, tmp_path: Path) -> Store:
    """A copy of the tiny release, to be damaged."""
    shutil.copytree(built(tiny).store.uri, tmp_path / "release")
    return Store(str(tmp_path / "release"))


@pytest.fixture(params=["exact", "re-ranked"])
def either(request: pytest.FixtureRequest, tiny: Config, compressed: Config, tmp_path: Path) -> Store:
    """A copy of a release whose scores are exact, or of one with stored vectors."""
    shutil.copytree(built(tiny if request.param == "exact" else compressed).store.uri, tmp_path / "release")
    return Store(str(tmp_path / "release"))


def names(path: str) -> str:
    """A pattern for a message that names this file of the release."""
    return rf"/release/{path}\b"


def test_an_untouched_release_is_verified_and_loaded_whole(tiny: Config, stored: Store) -> None:
    manifest = release.verify(stored)
    loaded = release.load(stored)
    assert loaded.name == manifest.version == built(tiny).name
    assert len(loaded.index) == loaded.catalogue.num_rows == builders.NUM_ITEMS
    assert loaded.catalogue.column_names == ["item", "title", "category", "price", "train_count"]
    assert [feature.column for feature in loaded.user_encoders.features] == ["country", "age"]
    assert not loaded.user_tower.training


def test_every_file_but_the_manifest_has_its_checksum(stored: Store) -> None:
    assert {*release.verify(stored).checksums, FILE} == set(stored.files())
    assert {
        USER_TOWER,
        ITEM_TOWER,
        release.SEARCH_FILE,
        release.LINEAGE_FILE,
        release.GATE_FILE,
        release.CATALOGUE_FILE,
    } <= set(stored.files())


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: bytes([content[0] ^ 1]) + content[1:],
        lambda content: content[:-1] + bytes([content[-1] ^ 128]),
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: content + b"\0",
    ],
    ids=["first bit", "last bit", "cut in half", "emptied", "one byte more"],
)
def test_a_damaged_file_is_refused_by_name(either: Store, damage: Callable[[bytes], bytes]) -> None:
    for path in release.verify(either).checksums:
        content = either.read(path)
        either.write(path, damage(content))
        with pytest.raises(CorruptRelease, match=names(path) + " has SHA-256 .* altered or cut short"):
            release.load(either)
        either.write(path, content)
    release.verify(either)


def test_a_missing_file_is_refused_by_name(either: Store) -> None:
    for path in either.files():
        content = either.read(path)
        Path(either.full(path)).unlink()
        with pytest.raises(CorruptRelease, match=names(path) + " is missing"):
            release.verify(either)
        either.write(path, content)
    release.verify(either)


def test_swapped_shards_are_refused_by_name(either: Store) -> None:
    first, second = release.shard_file(0), release.shard_file(1)
    contents = either.read(first), either.read(second)
    either.write(first, contents[1])
    either.write(second, contents[0])
    with pytest.raises(CorruptRelease, match=names(first)):
        release.verify(either)


def test_stored_vectors_of_another_shard_are_refused_even_with_their_checksum(
    compressed: Config, tmp_path: Path
) -> None:
    shutil.copytree(built(compressed).store.uri, tmp_path / "release")
    store = Store(str(tmp_path / "release"))
    write_consistently(store, release.stored_file(0), store.read(release.stored_file(1)))
    with pytest.raises(CorruptRelease, match=names("shards") + r" .* shard 0 has \d+ items and \d+ stored vectors"):
        release.load(store)


def test_a_re_ranked_release_is_loaded_with_its_vectors(compressed: Config, tiny: Config) -> None:
    store = built(compressed).store
    assert [path for path in store.files("shards") if path.endswith(".arrow")] == [
        release.stored_file(number) for number in range(3)
    ]
    (found, scores), (expected, of_expected) = (
        release.load(built(config).store).index.search(np.eye(8, dtype=np.float32), 10) for config in (compressed, tiny)
    )
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(scores, of_expected, atol=1e-3)


def test_a_shard_loads_alone(compressed: Config) -> None:
    store = built(compressed).store
    how = release.search_of(store)
    alone = [release.load_shard(store, how, number) for number in range(how.num_shards)]
    assert sum(map(len, alone)) == builders.NUM_ITEMS
    queries = np.eye(8, dtype=np.float32)
    expected, _ = release.load(store).index.search(queries, 10)
    found, _ = nearest.merge_in_turn((one.search(queries, 10) for one in alone), 10)
    np.testing.assert_array_equal(found, expected)


def test_a_manifest_that_is_none_is_refused_by_name(stored: Store) -> None:
    stored.write(FILE, b'{"stage": "releases"}')
    with pytest.raises(CorruptRelease, match=names(FILE) + " is not a manifest"):
        release.verify(stored)


def test_the_item_tower_of_a_release_makes_the_vectors_of_its_index(tiny: Config, stored: Store) -> None:
    """With the encoders beside it, from the catalogue as it was read: so it makes those of new items too."""
    tower = weights.load_item(stored.under(release.ITEM_TOWER))
    encoders = Encoders.from_json(json.loads(stored.read(release.ITEM_FEATURES_FILE)))
    items = pq.read_table(tiny.items.uri if tiny.items else "")
    order = pc.index_in(release.load(stored).catalogue["item"], items["item_id"])
    encoded = encoders.encode(items.take(order))
    made = embed.items(tower, inputs.from_table(encoded, encoders, len(order)))
    found, scores = release.load(stored).index.search(made, 1)
    np.testing.assert_allclose(scores[:, 0], 1.0, atol=1e-5)
    np.testing.assert_array_equal(found[:, 0], np.arange(builders.NUM_ITEMS))


@pytest.mark.parametrize("tower", [USER_TOWER, ITEM_TOWER])
def test_a_tower_of_another_release_is_refused_by_its_checksum(
    stored: Store, pair_of_releases: tuple[Config, Config], tower: str
) -> None:
    stored.write(tower, built(pair_of_releases[1]).store.read(tower))
    with pytest.raises(CorruptRelease, match=names(tower) + " has SHA-256 .* altered"):
        release.verify(stored)


@pytest.mark.parametrize("tower", [USER_TOWER, ITEM_TOWER])
def test_a_tower_of_another_release_is_refused_even_with_its_checksum(
    stored: Store, pair_of_releases: tuple[Config, Config], tower: str
) -> None:
    """The file fits the index in shape, and the manifest vouches for it; only the lineage tells."""
    other = built(pair_of_releases[1]).store
    write_consistently(stored, tower, other.read(tower))
    with pytest.raises(CorruptRelease, match=names(tower) + " .*the lineage names"):
        release.load(stored)


def test_a_release_that_has_no_item_tower_is_refused_with_the_remedy(stored: Store) -> None:
    """As an older raycl made it."""
    stored.delete(ITEM_TOWER)
    manifest = Manifest.read(stored)
    held = {path: digest for path, digest in manifest.checksums.items() if path != ITEM_TOWER}
    stored.write(FILE, manifest.model_copy(update={"checksums": held}).to_bytes())
    with pytest.raises(CorruptRelease, match=names(ITEM_TOWER) + " is not listed .*'raycl index --force'"):
        release.verify(stored)


def test_towers_and_lineage_of_another_release_do_not_fit_the_index(
    stored: Store, pair_of_releases: tuple[Config, Config]
) -> None:
    other = built(pair_of_releases[1]).store
    for path in (USER_TOWER, ITEM_TOWER, release.LINEAGE_FILE):
        write_consistently(stored, path, other.read(path))
    with pytest.raises(CorruptRelease, match=names(release.SEARCH_FILE) + " .*were not made together"):
        release.load(stored)


def test_an_index_of_another_item_tower_is_refused(stored: Store) -> None:
    search = json.loads(stored.read(release.SEARCH_FILE)) | {"item_tower": "0" * 64}
    write_consistently(stored, release.SEARCH_FILE, json.dumps(search).encode())
    with pytest.raises(CorruptRelease, match=names(release.SEARCH_FILE) + " says .*item tower 000000000000"):
        release.verify(stored)


@pytest.mark.parametrize(
    ("path", "content"),
    [
        (release.SEARCH_FILE, b'{"kind": "flat", "num_shards": 3, "num_lists": 0, "nprobe": 1, "dim": 8}'),
        (release.SEARCH_FILE, b"{half"),
        (release.LINEAGE_FILE, b'{"pairs": "one"}'),
        (release.CATALOGUE_FILE, b"not a table"),
        (release.FEATURES_FILE, b'[{"column": "age"}]'),
        (release.shard_file(1), b""),
    ],
)
def test_a_file_of_another_raycl_is_refused_by_name(stored: Store, path: str, content: bytes) -> None:
    write_consistently(stored, path, content)
    named = "shards" if path.startswith("shards") else path
    with pytest.raises(CorruptRelease, match=names(named) + " cannot be read by this raycl .*'raycl index --force'"):
        release.load(stored)


def test_a_whole_other_release_is_as_good(pair_of_releases: tuple[Config, Config]) -> None:
    """What the two checks above refuse is the mixture, not the other release."""
    first, second = (release.load(built(config).store) for config in pair_of_releases)
    assert first.name != second.name
    vectors = np.eye(8, dtype=np.float32)
    assert not np.array_equal(first.index.search(vectors, 5)[1], second.index.search(vectors, 5)[1])
