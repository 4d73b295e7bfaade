"""What was handed in between two nights, after the night: folded in where the catalogue has it, else carried over."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raycl import config_file, journey, schema
from raycl.config import Config
from raycl.config_encode import PROJECTION
from raycl.errors import RayclError, StoreUnavailable
from raycl.index import carry, delta_items, deltas, joined, publish, release, releases
from raycl.index.catalogue_rules import CatalogueRules
from raycl.storage import pointer, tables
from raycl.storage.manifest import FILE
from raycl.storage.versions import Version, Workspace, begun_at
from raycl.text.encoders import projected
from tests import tiny as builders
from tests.index.builders import built
from tests.index.handed import handed, rows

FIRST = builders.FIRST_ITEM
BEFORE, AFTER = 1_000.0, 4_000_000_000.0
"""Times of hand-ins: before the catalogue was read, and after it."""


@pytest.fixture
def two(pair_of_releases: tuple[Config, Config], tmp_path: Path) -> tuple[Workspace, Version, Version]:
    """A workspace of its own, its current release, and one of other towers that may be published next."""
    first, second = pair_of_releases
    workspace = journey.workspace(builders.copied(first, tmp_path))
    old, new = (workspace.open(releases.STAGE, built(one).name) for one in (first, second))
    return workspace, old, new


def words(workspace: Workspace, version: Version) -> dict[int, float | None]:
    """The price of each item that joined a release, and None for one that is removed."""
    catalogue = tables.read(version.store, release.CATALOGUE_FILE)
    delta = joined.together(deltas.take(workspace.store, version), catalogue, 8)
    came = dict(zip(*(delta.shown[name].to_pylist() for name in ("item", "price")), strict=True))
    hidden = [catalogue["item"][int(row)].as_py() for row in delta.hidden]
    return dict.fromkeys(hidden) | came


def test_the_catalogue_has_the_word_on_what_was_handed_in_before_it_was_read(
    two: tuple[Workspace, Version, Version],
) -> None:
    workspace, old, new = two
    deltas.write(workspace.store, old, handed(rows(900, FIRST, price=1.0), [FIRST + 1, 777]), BEFORE)
    deltas.write(workspace.store, old, handed(rows(FIRST + 2, price=2.0), [FIRST + 3]), AFTER)
    assert carry.over(workspace, old.name, new) == 4
    assert words(workspace, new) == {900: 1.0, FIRST + 1: None, FIRST + 2: 2.0, FIRST + 3: None}
    assert [one.at_s for one in deltas.take(workspace.store, new).segments.values()] == [BEFORE, AFTER]
    assert carry.over(workspace, old.name, new) == 0


def test_the_newest_word_alone_is_carried_over(two: tuple[Workspace, Version, Version]) -> None:
    workspace, old, new = two
    deltas.write(workspace.store, old, handed(rows(900, 901, price=1.0)), BEFORE)
    deltas.write(workspace.store, old, handed(rows(900, price=2.0), [901]), BEFORE + 1)
    deltas.write(workspace.store, old, handed(rows(902)), BEFORE + 2)
    deltas.withdraw(workspace.store, old, 3)
    carry.over(workspace, old.name, new)
    assert words(workspace, new) == {900: 2.0}
    assert deltas.numbers(workspace.store, new.name) == [1]


def test_what_is_carried_over_lies_where_the_new_tower_puts_it(two: tuple[Workspace, Version, Version]) -> None:
    workspace, old, new = two
    given = handed(rows(900, 901, price=7.0, category="rope"))
    deltas.write(workspace.store, old, given, BEFORE)
    carry.over(workspace, old.name, new)
    found, was = (deltas.take(workspace.store, one).tables[1]["vector"].to_pylist() for one in (new, old))
    expected = delta_items.table(new, given)[0]["vector"].to_pylist()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert not np.allclose(found, was, atol=1e-3)


def test_a_newer_word_of_the_release_itself_stays(two: tuple[Workspace, Version, Version]) -> None:
    workspace, old, new = two
    deltas.write(workspace.store, old, handed(rows(900, price=1.0), [FIRST]), AFTER)
    deltas.write(workspace.store, new, handed(rows(900, FIRST, price=2.0)), AFTER + 1)
    assert carry.over(workspace, old.name, new) == 0
    assert words(workspace, new) == {900: 2.0, FIRST: 2.0}


def test_what_was_taken_back_in_the_release_itself_does_not_come_again(
    two: tuple[Workspace, Version, Version],
) -> None:
    workspace, old, new = two
    deltas.write(workspace.store, old, handed(rows(900)), BEFORE)
    carry.over(workspace, old.name, new)
    deltas.withdraw(workspace.store, new, 1)
    assert carry.over(workspace, old.name, new) == 0
    assert words(workspace, new) == {}


def retired(monkeypatch: pytest.MonkeyPatch, version: Version, item: int) -> None:
    """Have the catalogue of this release list an item no more."""
    listed = carry._listed

    def without(workspace: Workspace, of: Version, items: list[object]) -> list[bool]:
        found = listed(workspace, of, items)
        return [one and (of.name != version.name or name != item) for one, name in zip(found, items, strict=True)]

    monkeypatch.setattr(carry, "_listed", without)


def test_an_item_that_the_catalogue_dropped_since_is_gone_whatever_was_said_of_it(
    two: tuple[Workspace, Version, Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, old, new = two
    deltas.write(workspace.store, old, handed(rows(FIRST), [FIRST + 1]), BEFORE)
    retired(monkeypatch, new, FIRST)
    retired(monkeypatch, new, FIRST + 1)
    assert carry.over(workspace, old.name, new) == 0


def test_an_item_that_no_catalogue_lists_is_not_lost(
    two: tuple[Workspace, Version, Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, old, new = two
    deltas.write(workspace.store, old, handed(rows(FIRST)), BEFORE)
    for version in (old, new):
        retired(monkeypatch, version, FIRST)
    assert carry.over(workspace, old.name, new) == 1


def test_items_that_the_pairs_have_retired_are_not_listed(two: tuple[Workspace, Version, Version]) -> None:
    workspace, old, _ = two
    assert carry._listed(workspace, old, [FIRST, 900]) == [True, False]
    pairs = workspace.open("pairs", release.lineage_of(old.store).pairs)
    (path,) = [path for path in pairs.store.files() if path.startswith("vocab/items") and path.endswith(".parquet")]
    table = pq.read_table(pairs.store.full(path))
    gone = [item == FIRST for item in table["item"].to_pylist()]
    place = table.column_names.index("retired")
    tables.write(pairs.store, path, table.set_column(place, "retired", [gone]))
    assert carry._listed(workspace, old, [FIRST, FIRST + 1]) == [False, True]
    workspace.store.delete_folder(f"pairs/{pairs.name}")
    assert carry._listed(workspace, old, [FIRST, 900]) == [True, False]


def test_what_cannot_be_read_or_embedded_is_left_behind_and_logged(
    two: tuple[Workspace, Version, Version], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, old, new = two
    for item in (900, 901, 902):
        deltas.write(workspace.store, old, handed(rows(item)), BEFORE + item)
    folder, taken = deltas.folder_of(workspace.store, old.name), deltas.take(workspace.store, old)
    folder.write("000001.json", b"{half")
    folder.write(taken.segments[2].given, b"another")
    with caplog.at_level(logging.WARNING):
        carry.over(workspace, old.name, new)
    assert words(workspace, new) == {902: 3.0}
    assert "000001.json cannot be read" in caplog.text
    assert f"{taken.segments[2].given} has SHA-256" in caplog.text
    workspace.store.delete_folder(f"releases/{old.name}")
    caplog.clear()
    assert carry.over(workspace, old.name, new) == 0
    assert "is not carried over" in caplog.text


def test_publishing_carries_over_and_rolling_back_does_too(two: tuple[Workspace, Version, Version]) -> None:
    workspace, old, new = two
    deltas.write(workspace.store, old, handed(rows(900), [FIRST]), BEFORE)
    publish.publish(workspace, new)
    assert words(workspace, new) == {900: 3.0, FIRST: None}
    deltas.write(workspace.store, new, handed(rows(901), [900]))
    releases.rollback(workspace)
    assert words(workspace, old) == {901: 3.0, FIRST: None}
    before = workspace.store.files(deltas.FOLDER)
    publish.publish(workspace, old)
    publish.publish(workspace, old)
    assert workspace.store.files(deltas.FOLDER) == before


def test_what_comes_while_a_release_is_published_comes_along(
    two: tuple[Workspace, Version, Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, old, new = two

    def publish_late(*arguments: Any, publish_now: Any = pointer.publish) -> Any:
        deltas.write(workspace.store, old, handed(rows(900)))
        return publish_now(*arguments)

    monkeypatch.setattr(pointer, "publish", publish_late)
    publish.publish(workspace, new)
    assert words(workspace, new) == {900: 3.0}


def test_a_publication_that_was_killed_before_the_rest_was_carried_over_is_brought_to_its_end(
    two: tuple[Workspace, Version, Version],
) -> None:
    workspace, old, new = two
    pointer.publish(workspace.store, new.name)
    deltas.write(workspace.store, old, handed(rows(900)), BEFORE)
    publish.publish(workspace, new)
    assert words(workspace, new) == {900: 3.0}


def test_a_store_that_fails_before_the_release_is_current_leaves_the_one_before(
    two: tuple[Workspace, Version, Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, old, new = two
    deltas.write(workspace.store, old, handed(rows(900)), BEFORE)

    def take(*arguments: Any) -> Any:
        raise StoreUnavailable("the store is away")

    with monkeypatch.context() as patched:
        patched.setattr(deltas, "take", take)
        with pytest.raises(StoreUnavailable, match="the store is away"):
            publish.publish(workspace, new)
    assert pointer.current(workspace.store) == pointer.Pointer(1, old.name)
    publish.publish(workspace, new)
    assert words(workspace, new) == {900: 3.0}


def test_a_store_that_fails_once_the_release_is_current_is_told_with_what_is_left_to_do(
    two: tuple[Workspace, Version, Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, old, new = two

    def fail_from_now_on(*arguments: Any, publish_now: Any = pointer.publish) -> Any:
        deltas.write(workspace.store, old, handed(rows(900)))
        patched.setattr(deltas, "numbers", take)
        return publish_now(*arguments)

    def take(*arguments: Any) -> Any:
        raise StoreUnavailable("the store is away")

    with monkeypatch.context() as patched:
        patched.setattr(pointer, "publish", fail_from_now_on)
        told = rf"release {new.name} is current, but what was handed in to {old.name} .* \(the store is away\): publish"
        with pytest.raises(RayclError, match=told):
            publish.publish(workspace, new)
    assert pointer.current(workspace.store) == pointer.Pointer(2, new.name)
    publish.publish(workspace, new)
    assert words(workspace, new) == {900: 3.0}


def test_the_next_night_folds_in_what_its_catalogue_lists_and_keeps_the_rest(tiny: Config, tmp_path: Path) -> None:
    """A whole journey: 900 is in the new catalogue, 901 is not; of two removed items one is still listed there."""
    first = builders.copied(tiny, tmp_path)
    workspace = journey.workspace(first)
    old = workspace.open(releases.STAGE, built(first).name)
    deltas.write(workspace.store, old, handed(rows(900, 901), [FIRST, FIRST + 1]))
    assert first.items is not None
    listed = pq.read_table(first.items.uri).to_pylist()
    table = [row for row in listed if row["item_id"] != FIRST] + rows(900, price=8.0).to_pylist()
    pq.write_table(rows().from_pylist(table, schema=rows().schema), tmp_path / "items.parquet")
    tree = first.model_dump(mode="json")
    tree["items"]["uri"] = str(tmp_path / "items.parquet")
    second = config_file.check(tree)
    builders.run_stages(second)
    new = workspace.open(releases.STAGE, built(second).name)
    assert new.name != old.name
    assert words(workspace, new) == {901: 3.0, FIRST + 1: None}
    catalogue = {row["item"]: row for row in tables.read(new.store, release.CATALOGUE_FILE).to_pylist()}
    assert (catalogue[900]["price"], 901 in catalogue) == (8.0, False)
    begun = begun_at(release.lineage_of(new.store).pairs)
    assert begun is not None
    assert replace(deltas.take(workspace.store, new).segments[1]).at_s < begun.timestamp()


def ruled(version: Version, workspace: Workspace, left_out: Sequence[int] = (), **where: object) -> None:
    """Have the pairs of a release be made by this ``items.where``, which left out these items."""
    pairs = workspace.open("pairs", release.lineage_of(version.store).pairs)
    config = {**pairs.manifest.config, "items": {**pairs.manifest.config["items"], "where": where}}
    pairs.store.write(FILE, pairs.manifest.model_copy(update={"config": config}).to_bytes())
    tables.write(pairs.store, schema.UNWANTED_FILE, pa.table({"item": pa.array(left_out, pa.int64())}))


def test_what_the_next_catalogue_leaves_out_by_its_rule_does_not_come_back(
    two: tuple[Workspace, Version, Version],
) -> None:
    """902 passes the rule as it was handed in and the table says otherwise since; 903 was changed to pass no more."""
    workspace, old, new = two
    ruled(new, workspace, [902, 904], category="tea")
    deltas.write(workspace.store, old, handed(rows(900, 902, 903)), BEFORE)
    deltas.write(workspace.store, old, handed(rows(901, 903, FIRST, category="rope")), BEFORE + 1)
    deltas.write(workspace.store, old, handed(rows(904)), AFTER)
    deltas.write(workspace.store, old, handed(rows(905, FIRST + 1, category="rope")), AFTER + 1)
    assert carry.over(workspace, old.name, new) == 3
    assert words(workspace, new) == {900: 3.0, 904: 3.0, FIRST + 1: None}
    assert carry.over(workspace, old.name, new) == 0


def test_vectors_of_words_are_made_by_the_encoder_of_the_next_release(
    tiny: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A whole journey: 900 has the words that are read now, 901 was given without; of 902 the table says it is shut."""
    first = builders.copied(tiny, tmp_path)
    workspace = journey.workspace(first)
    old = workspace.open(releases.STAGE, built(first).name)
    stale = [rows(item).append_column("said", pa.array([[9.0] * 8])) for item in (900, 901, 902)]
    for given in (stale[0], stale[1].drop_columns(["category"]), stale[2]):
        open_ones = given.append_column("shut", pa.nulls(1, pa.string()))
        deltas.write(workspace.store, old, replace(handed(open_ones), forgiving=True))
    assert first.items is not None
    listed = pq.read_table(first.items.uri)
    listed = pa.concat_tables([listed, rows(902).cast(listed.schema)])
    shut = pa.array([*[None] * (listed.num_rows - 1), "yes"], pa.string())
    pq.write_table(listed.append_column("shut", shut), tmp_path / "items.parquet")
    tree = first.model_dump(mode="json")
    encoding = {"column": "said", "of": ["title", "category"], "model": "projection", "length": 8}
    tree["items"] |= {"uri": str(tmp_path / "items.parquet"), "encode": [encoding], "where": {"shut": None}}
    tree["items"]["features"] += [{"column": "said", "kind": "vector", "length": 8}]
    second = config_file.check(tree)
    builders.run_stages(second)
    new = workspace.open(releases.STAGE, built(second).name)
    assert CatalogueRules.of(workspace, new).made.models == {"said": PROJECTION}
    taken = deltas.take(workspace.store, new)
    assert [table["item"].to_pylist() for table in taken.tables.values()] == [[900]]
    given = deltas.given_of(workspace.store, new.name, 1, taken.segments[1])
    np.testing.assert_array_equal(given["said"].to_pylist(), projected(["Told anew 900. tea"], 8))
    assert "1 items of hand-in 2" in caplog.text
    assert "the words to make them of are not there: category" in caplog.text


def test_before_says_which_release_was_current_last(two: tuple[Workspace, Version, Version]) -> None:
    workspace, old, new = two
    assert carry.before(workspace.store, old.name) is None
    assert carry.before(workspace.store, new.name) == old.name
    publish.publish(workspace, new)
    assert (carry.before(workspace.store, new.name), carry.before(workspace.store, old.name)) == (old.name, new.name)
