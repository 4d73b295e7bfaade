"""Versions are seen when they are finished and not before, and a killed run goes on where it stopped."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import raycl
from raycl.errors import InputError
from raycl.storage import versions
from raycl.storage.manifest import FILE, Manifest
from raycl.storage.store import Store
from raycl.storage.versions import Workspace, fingerprint
from tests.storage.builders import DIGEST, FILES, commit, fill, finished

OTHER = fingerprint("another config")


def test_a_draft_is_invisible_to_readers_until_its_commit(store: Store) -> None:
    workspace = Workspace(store)
    draft = workspace.draft("pairs", DIGEST)
    fill(draft)
    assert workspace.finished("pairs") == []
    assert workspace.find("pairs", DIGEST) is None
    with pytest.raises(InputError, match=r"has no manifest\.json: no such finished version of pairs"):
        workspace.open("pairs", draft.name)
    with pytest.raises(InputError, match="has no finished pairs"):
        workspace.latest("pairs", "run it")

    version = commit(draft)
    assert workspace.finished("pairs") == [draft.name] == [version.name]
    assert workspace.find("pairs", DIGEST) == workspace.open("pairs", draft.name) == version
    assert workspace.latest("pairs", "run it") == version


def test_a_commit_lists_the_checksum_of_every_file(store: Store) -> None:
    version = finished(store)
    assert version.manifest.checksums == {path: hashlib.sha256(held).hexdigest() for path, held in FILES.items()}
    assert version.store.files() == sorted([*FILES, FILE])
    assert {path: version.store.read(path) for path in FILES} == FILES


def test_a_manifest_says_what_was_made_from_what(store: Store) -> None:
    manifest = finished(store, "towers").manifest
    assert (manifest.stage, manifest.fingerprint) == ("towers", DIGEST)
    assert re.fullmatch(rf"\d{{8}}T\d{{9}}-{DIGEST[:12]}", manifest.version)
    assert manifest.inputs == {"pairs": "some-pairs"}
    assert manifest.config == {"model": {"dim": 4}}
    assert (manifest.counts, manifest.dropped) == ({"rows": 2}, {"no_user": 1})
    assert (manifest.facts, manifest.columns) == ({"recall": 0.5}, {"data": {"user": "int64"}})
    assert manifest.wall_s >= 0.0
    assert manifest.raycl == raycl.__version__
    assert {"python", "ray", "torch", "pyarrow", "numpy"} <= set(manifest.libraries)


def test_a_commit_removes_what_was_only_there_to_resume(store: Store) -> None:
    draft = Workspace(store).draft("pairs", DIGEST)
    fill(draft)
    draft.finish_task("clean-0", {"rows": 3})
    draft.store.write("work/rows/0.arrow", b"rows")
    draft.store.write("data/.part-2.bin.0123.partial", b"half")
    version = commit(draft)
    assert version.store.files() == sorted([*FILES, FILE])
    assert set(version.manifest.checksums) == set(FILES)


def test_a_killed_run_goes_on_in_its_folder_with_its_finished_tasks(store: Store) -> None:
    workspace = Workspace(store)
    first = workspace.draft("pairs", DIGEST)
    assert not first.resumed
    assert first.task_done("clean-0") is None
    first.finish_task("clean-0", {"rows": 3})
    first.store.write("data/part-0.bin", b"zero")

    second = Workspace(Store(store.uri)).draft("pairs", DIGEST)  # as a later process would
    assert second.resumed
    assert second.name == first.name
    assert second.task_done("clean-0") == {"rows": 3}
    assert second.task_done("clean-1") is None
    assert second.store.read("data/part-0.bin") == b"zero"
    commit(second)
    assert workspace.finished("pairs") == [first.name]
    assert not workspace.draft("pairs", DIGEST).resumed


def test_work_of_another_fingerprint_or_stage_is_not_resumed(store: Store) -> None:
    workspace = Workspace(store)
    workspace.draft("pairs", DIGEST).finish_task("clean-0", {})
    assert not workspace.draft("pairs", OTHER).resumed
    assert not workspace.draft("towers", DIGEST).resumed
    assert workspace.draft("pairs", DIGEST).resumed


def test_fresh_makes_a_new_version_beside_unfinished_and_finished_ones(store: Store) -> None:
    workspace = Workspace(store)
    workspace.draft("pairs", DIGEST).finish_task("clean-0", {})
    first = finished(store)
    fresh = workspace.draft("pairs", DIGEST, fresh=True)
    assert not fresh.resumed
    assert fresh.task_done("clean-0") is None
    fill(fresh)
    second = commit(fresh)
    assert workspace.finished("pairs") == [first.name, second.name]
    assert workspace.find("pairs", DIGEST) == second
    assert len(store.names("pairs")) == 3


def test_two_drafts_of_one_millisecond_get_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"20260101T000000{millisecond:03d}-{DIGEST[:12]}" for millisecond in (0, 0, 0, 1)]
    monkeypatch.setattr(versions, "_version_name", lambda _: names.pop(0))
    store = Store(str(tmp_path))
    first, second = finished(store), finished(store)
    assert (first.name[:18], second.name[:18]) == ("20260101T000000000", "20260101T000000001")


def test_versions_are_found_by_their_whole_fingerprint(store: Store) -> None:
    workspace = Workspace(store)
    alike = DIGEST[:12] + "0" * 52  # its folders look the same
    ours, _, other = finished(store), finished(store, digest=alike), finished(store, digest=OTHER)
    assert workspace.find("pairs", DIGEST) == ours
    assert workspace.find("pairs", OTHER) == other
    assert workspace.find("pairs", fingerprint("a third")) is None
    assert workspace.find("towers", DIGEST) is None
    assert workspace.latest("pairs", "") == other


def test_latest_names_workspace_stage_and_remedy_where_there_is_none(store: Store) -> None:
    with pytest.raises(InputError) as caught:
        Workspace(store).latest("towers", "run 'raycl train' first")
    assert str(caught.value) == f"workspace={store.uri} has no finished towers: run 'raycl train' first"


def test_folders_that_are_no_versions_are_passed_over(store: Store) -> None:
    version = finished(store, "releases")
    store.write("releases/published/000001.json", b"{}")
    store.write(f"releases/notes/{FILE}", b"{}")
    assert Workspace(store).finished("releases") == [version.name]


def test_a_stored_version_reads_back_equal(store: Store) -> None:
    version = finished(store)
    assert Manifest.read(version.store) == version.manifest
    assert Manifest.model_validate_json(version.manifest.to_bytes()) == version.manifest


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.dictionaries(st.text(max_size=4), st.integers() | st.none() | st.lists(st.text(max_size=3)), max_size=5))
def test_a_fingerprint_depends_on_content_and_not_on_order(part: dict[str, object]) -> None:
    turned = dict(reversed(part.items()))
    assert fingerprint("pairs", part) == fingerprint("pairs", turned)
    assert fingerprint("pairs", part | {"more": 1}) != fingerprint("pairs", part)
    assert fingerprint("pairs", part) != fingerprint(part, "pairs")


def test_a_fingerprint_is_the_same_in_another_process() -> None:
    code = "from raycl.storage.versions import fingerprint; print(fingerprint('a', {'b': [1, 2.5], 'c': None}))"
    command = [sys.executable, "-c", code]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    assert printed == fingerprint("a", {"c": None, "b": [1, 2.5]})
