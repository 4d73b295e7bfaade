"""What may become the current release, and that nothing else does."""

from __future__ import annotations

from pathlib import Path

import pytest

from raycl import journey
from raycl.config import Config
from raycl.errors import CorruptRelease, GateRefused, InputError
from raycl.index import release
from raycl.index.publish import publish
from raycl.storage import pointer
from raycl.storage.pointer import Pointer
from tests import tiny as builders
from tests.index.builders import built, write_consistently


@pytest.fixture
def unpublished(pair_of_releases: tuple[Config, Config], tmp_path: Path) -> tuple[Config, Config]:
    """A copy of the workspace with two releases, neither of them published."""
    first = builders.copied(pair_of_releases[0], tmp_path)
    journey.workspace(first).store.delete_folder(pointer.FOLDER)
    return first, pair_of_releases[1].model_copy(update={"workspace": first.workspace})


def test_publishing_again_changes_nothing(unpublished: tuple[Config, Config]) -> None:
    config = unpublished[0]
    workspace, version = journey.workspace(config), built(config)
    assert pointer.current(workspace.store) is None
    assert publish(workspace, version) == Pointer(1, version.name)
    files = workspace.store.files(pointer.FOLDER)
    assert publish(workspace, version) == pointer.current(workspace.store) == Pointer(1, version.name)
    assert workspace.store.files(pointer.FOLDER) == files == [f"{pointer.FOLDER}/000001.json"]


def test_the_newest_publication_wins_and_an_older_release_can_come_back(unpublished: tuple[Config, Config]) -> None:
    first, second = unpublished
    workspace = journey.workspace(first)
    for number, config in enumerate((first, second, first), start=1):
        outcome = journey.publish(config)
        assert outcome.worked
        assert pointer.current(workspace.store) == Pointer(number, built(config).name)
    assert not journey.publish(first).worked


def test_a_refused_release_is_complete_and_stays_unpublished(unpublished: tuple[Config, Config]) -> None:
    config = builders.changed(unpublished[0], "gate", min_recall=1.0)
    version = journey.index(config).version
    release.verify(version.store)
    assert version.manifest.facts["publish"] is False
    with pytest.raises(GateRefused, match=rf"release {version.name} is not published: recall@10 0\.\d+ < 1 on the"):
        journey.publish(config)
    assert journey.workspace(config).store.files(pointer.FOLDER) == []


def test_a_refusal_leaves_the_release_before_current(unpublished: tuple[Config, Config]) -> None:
    journey.publish(unpublished[0])
    before = pointer.current(journey.workspace(unpublished[0]).store)
    config = builders.changed(unpublished[0], "gate", min_recall=1.0)
    journey.index(config)
    with pytest.raises(GateRefused):
        journey.publish(config)
    assert pointer.current(journey.workspace(config).store) == before


def test_a_damaged_release_is_not_published(unpublished: tuple[Config, Config]) -> None:
    config = unpublished[0]
    built(config).store.write(release.shard_file(2), b"")
    with pytest.raises(CorruptRelease, match=r"shards/00002\.faiss"):
        journey.publish(config)
    assert journey.workspace(config).store.files(pointer.FOLDER) == []


def test_a_release_that_is_whole_and_cannot_be_loaded_is_not_published(unpublished: tuple[Config, Config]) -> None:
    """Its checksums hold: what is wrong was written so."""
    journey.publish(unpublished[1])
    before = pointer.current(journey.workspace(unpublished[0]).store)
    config = unpublished[0]
    write_consistently(built(config).store, release.shard_file(2), b"not an index")
    release.verify(built(config).store)
    with pytest.raises(CorruptRelease, match=r"/shards cannot be read by this raycl .* 'raycl index --force'"):
        journey.publish(config)
    assert pointer.current(journey.workspace(config).store) == before


def test_a_release_that_is_not_built_cannot_be_published(unpublished: tuple[Config, Config]) -> None:
    config = builders.changed(unpublished[0], "index", num_shards=5)
    with pytest.raises(InputError, match="has no finished releases of this config: run 'raycl index' first"):
        journey.publish(config)
