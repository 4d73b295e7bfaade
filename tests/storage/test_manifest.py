"""A manifest tells a version that is whole from one that was altered."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raycl.errors import CorruptRelease, InputError
from raycl.storage.manifest import FILE, Manifest, library_versions
from raycl.storage.store import Store
from tests.storage.builders import FILES, finished


def test_a_version_that_is_whole_is_verified(store: Store) -> None:
    version = finished(store)
    version.manifest.verify(version.store)
    version.manifest.verify(version.store, ["facts.json"])
    version.manifest.verify(version.store, ["data"])
    assert version.verified("data", "facts.json").complete("data") is version


@pytest.mark.parametrize(
    ("path", "change"), [("data/part-0.bin", b"zerO"), ("data/part-1.bin", b"on"), ("facts.json", b"{} ")]
)
def test_an_altered_file_is_named(store: Store, path: str, change: bytes) -> None:
    version = finished(store)
    version.store.write(path, change)
    with pytest.raises(CorruptRelease, match=rf"{path} has SHA-256 .*altered or cut short; .*--force"):
        version.manifest.verify(version.store)
    for quietly in (False, True):
        with pytest.raises(CorruptRelease, match=path):
            version.manifest.verify(version.store, [path], quietly=quietly)
    version.manifest.verify(version.store, [other for other in FILES if other != path])
    for other in {"data", "facts.json"} - {path, path.partition("/")[0]}:
        assert version.verified(other) is version


def test_a_missing_file_is_named(store: Store) -> None:
    version = finished(store)
    version.store.delete("data/part-1.bin")
    for asked in (None, ["data"], ["data/part-1.bin"]):
        with pytest.raises(CorruptRelease, match=r"data/part-1\.bin is missing: build the version again with --force"):
            version.manifest.verify(version.store, asked)
    with pytest.raises(CorruptRelease, match=r"data/part-1\.bin is missing"):
        version.complete("data")


def test_a_file_that_the_manifest_does_not_list_is_not_trusted(store: Store) -> None:
    version = finished(store)
    version.store.write("data/part-2.bin", b"two")
    with pytest.raises(CorruptRelease, match=r"data/part-2\.bin is not listed in its manifest"):
        version.manifest.verify(version.store, ["data/part-0.bin", "data/part-2.bin"])
    for check in (version.verified, version.complete):
        with pytest.raises(CorruptRelease, match=r"data/part-2\.bin is not listed in its manifest"):
            check("data")
        with pytest.raises(CorruptRelease, match=r"dat is not listed in its manifest"):
            check("dat")


def test_a_file_of_another_size_is_found_by_a_listing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    version = finished(store)
    assert version.manifest.sizes == {path: len(content) for path, content in FILES.items()}
    version.store.write("data/part-1.bin", b"on")
    version.store.write("facts.json", b"{ }")
    monkeypatch.setattr(Store, "sha256", lambda *_: pytest.fail("a listing is enough"))
    with pytest.raises(CorruptRelease, match=r"data/part-1\.bin has 2 bytes, its manifest says 3: .* --force"):
        version.complete("data")


def test_a_file_that_its_writer_has_not_finished_is_passed_over(tmp_path: Path) -> None:
    version = finished(Store(str(tmp_path)))
    version.store.write("data/.part-1.bin.0123.partial", b"half")
    assert version.verified("data") is version


def test_a_manifest_that_was_cut_short_is_no_manifest(store: Store) -> None:
    version = finished(store)
    whole = version.store.read(FILE)
    for kept in (0, 1, 100, len(whole) - 1):
        version.store.write(FILE, whole[:kept])
        with pytest.raises(CorruptRelease, match=rf"{version.name}/{FILE} is not a manifest of this raycl"):
            Manifest.read(version.store)


def test_fields_that_this_raycl_does_not_know_are_passed_over(tmp_path: Path) -> None:
    version = finished(Store(str(tmp_path)))
    tree = json.loads(version.store.read(FILE))
    version.store.write(FILE, json.dumps(tree | {"surprise": {"deep": 1}}).encode())
    assert Manifest.read(version.store) == version.manifest


@pytest.mark.parametrize("found", [2, "1.0", None])
def test_another_format_is_refused_with_the_raycl_that_wrote_it(tmp_path: Path, found: object) -> None:
    version = finished(Store(str(tmp_path)))
    version.store.write(FILE, json.dumps({"format": found, "raycl": "9.1"}).encode())
    with pytest.raises(
        InputError, match=rf"{FILE} has format {found}, and raycl \S+ reads 1: use raycl 9\.1, or build"
    ):
        Manifest.read(version.store)


def test_a_manifest_without_its_fields_is_no_manifest(tmp_path: Path) -> None:
    version = finished(Store(str(tmp_path)))
    tree = json.loads(version.store.read(FILE))
    lesser = [{key: value for key, value in tree.items() if key != gone} for gone in ("checksums", "sizes", "format")]
    for other in (*lesser, tree | {"counts": {"rows": "many"}}, [tree]):
        version.store.write(FILE, json.dumps(other).encode())
        with pytest.raises(CorruptRelease, match="is not a manifest of this raycl"):
            Manifest.read(version.store)


def test_the_versions_of_the_libraries_are_those_that_are_installed() -> None:
    found = library_versions()
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["numpy"] == np.__version__
    assert found["pyarrow"] == pa.__version__
    assert ("faiss-cpu" in found) != ("faiss-gpu" in found)
