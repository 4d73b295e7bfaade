"""A manifest tells a version that is whole from one that was altered."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raycl.errors import CorruptRelease
from raycl.storage.manifest import FILE, Manifest, library_versions
from raycl.storage.store import Store
from tests.storage.builders import FILES, finished


def test_a_version_that_is_whole_is_verified(store: Store) -> None:
    version = finished(store)
    version.manifest.verify(version.store)
    version.manifest.verify(version.store, ["facts.json"])


@pytest.mark.parametrize(
    ("path", "change"), [("data/part-0.bin", b"zerO"), ("data/part-1.bin", b"on"), ("facts.json", b"{} ")]
)
def test_an_altered_file_is_named(store: Store, path: str, change: bytes) -> None:
    version = finished(store)
    version.store.write(path, change)
    with pytest.raises(CorruptRelease, match=rf"{path} has SHA-256 .*altered or cut short; .*--force"):
        version.manifest.verify(version.store)
    with pytest.raises(CorruptRelease, match=path):
        version.manifest.verify(version.store, [path])
    version.manifest.verify(version.store, [other for other in FILES if other != path])


def test_a_missing_file_is_named(store: Store) -> None:
    version = finished(store)
    version.store.filesystem.delete_file(version.store.full("data/part-1.bin"))
    with pytest.raises(CorruptRelease, match=r"data/part-1\.bin is missing: build the version again with --force"):
        version.manifest.verify(version.store)


def test_a_file_that_the_manifest_does_not_list_is_not_trusted(store: Store) -> None:
    version = finished(store)
    version.store.write("data/part-2.bin", b"two")
    with pytest.raises(CorruptRelease, match=r"data/part-2\.bin is not listed in its manifest"):
        version.manifest.verify(version.store, ["data/part-0.bin", "data/part-2.bin"])


def test_a_manifest_that_was_cut_short_is_no_manifest(store: Store) -> None:
    version = finished(store)
    whole = version.store.read(FILE)
    for kept in (0, 1, 100, len(whole) - 1):
        version.store.write(FILE, whole[:kept])
        with pytest.raises(CorruptRelease, match=rf"{version.name}/{FILE} is not a manifest of this raycl"):
            Manifest.read(version.store)


def test_a_manifest_with_other_fields_is_no_manifest(tmp_path: Path) -> None:
    version = finished(Store(str(tmp_path)))
    tree = json.loads(version.store.read(FILE))
    less = {key: value for key, value in tree.items() if key != "checksums"}
    for other in (tree | {"surprise": 1}, less, tree | {"counts": {"rows": "many"}}, [tree]):
        version.store.write(FILE, json.dumps(other).encode())
        with pytest.raises(CorruptRelease, match="is not a manifest of this raycl"):
            Manifest.read(version.store)


def test_the_versions_of_the_libraries_are_those_that_are_installed() -> None:
    found = library_versions()
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["numpy"] == np.__version__
    assert found["pyarrow"] == pa.__version__
    assert ("faiss-cpu" in found) != ("faiss-gpu" in found)
