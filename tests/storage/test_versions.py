"""Versions are seen when they are finished and not before, and a killed run goes on where it stopped."""

from __future__ import annotations

import copy
import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import raycl
from raycl.errors import CorruptRelease, InputError, RayclError
from raycl.storage import versions
from raycl.storage.manifest import FILE, Manifest
from raycl.storage.store import Store
from raycl.storage.versions import Workspace, fingerprint
from tests.storage.builders import DIGEST, FILES, Killed, commit, fill, finished, run_stage

OTHER = fingerprint("another config")


def test_a_draft_is_invisible_to_readers_until_its_commit(store: Store) -> None:
    workspace = Workspace(store)
    draft = workspace.draft("pairs", DIGEST)
    fill(draft)
    assert workspace.finished("pairs") == []
    assert workspace.find("pairs", DIGEST) is None
    with pytest.raises(InputError, match=r"has no manifest\.json: no such finished version of pairs"):
        workspace.open("pairs", draft.name)
    assert list(workspace.readable("pairs")) == []

    version = commit(draft)
    assert workspace.finished("pairs") == [draft.name] == [version.name]
    assert workspace.find("pairs", DIGEST) == workspace.open("pairs", draft.name) == version
    assert list(workspace.readable("pairs")) == [version]


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
    assert first.task_done("clean-0") is None
    first.finish_task("clean-0", {"rows": 3})
    first.store.write("data/part-0.bin", b"zero")

    second = Workspace(Store(store.uri)).draft("pairs", DIGEST)  # as a later process would
    assert second.name == first.name
    assert second.task_done("clean-0") == {"rows": 3}
    assert second.task_done("clean-1") is None
    assert second.store.read("data/part-0.bin") == b"zero"
    commit(second)
    assert workspace.finished("pairs") == [first.name]
    assert workspace.draft("pairs", DIGEST).name > first.name


def test_a_stage_killed_at_any_of_its_changes_ends_as_one_that_was_not(store: Store) -> None:
    """The last kills are within the removal of what was only there to resume: the version is finished then."""
    whole = run_stage(Workspace(store.under("whole")))
    num_finished = 0
    for num_changes in range(100):
        workspace = Workspace(store.under(f"killed-{num_changes}"))
        try:
            run_stage(workspace, num_changes)
            break
        except Killed:
            num_finished += len(workspace.finished("pairs"))
        again = run_stage(workspace)
        assert workspace.store.names("pairs") == [again.name]
        assert again.manifest.checksums == whole.manifest.checksums
        assert again.store.files() == whole.store.files()
        again.verified(*again.manifest.checksums)
    assert num_changes > num_finished >= 5  # two counts, two records and the lease


def test_what_a_killed_commit_left_is_nothing_to_readers(store: Store) -> None:
    draft = Workspace(store).draft("pairs", DIGEST)
    fill(draft)
    version = commit(draft)
    version.store.write("work/counts/0", b"1")
    assert Workspace(store).open("pairs", version.name).verified("data") == version
    assert Workspace(store).find("pairs", DIGEST) == version
    assert version.store.files() == sorted([*FILES, FILE])


def test_of_two_commits_of_one_folder_the_first_stays(store: Store) -> None:
    first = Workspace(store).draft("pairs", DIGEST)
    fill(first)
    second = copy.deepcopy(first)
    version = commit(first)
    with pytest.raises(RayclError, match="taken over by another run"):
        commit(second)
    draft = Workspace(store).draft("pairs", OTHER)
    draft.store.write(FILE, b"of another run")
    with pytest.raises(RayclError, match=rf"{draft.name} was finished by another run: run again to use its version"):
        commit(draft)
    assert draft.store.read(FILE) == b"of another run"
    assert Workspace(store).find("pairs", DIGEST) == version


def test_work_of_another_fingerprint_or_stage_is_not_gone_on_with(store: Store) -> None:
    workspace = Workspace(store)
    workspace.draft("pairs", DIGEST).finish_task("clean-0", {})
    assert workspace.draft("pairs", OTHER).task_done("clean-0") is None
    assert workspace.draft("towers", DIGEST).task_done("clean-0") is None
    assert workspace.draft("pairs", DIGEST).task_done("clean-0") == {}


def test_work_that_was_cut_otherwise_is_left_alone(store: Store) -> None:
    workspace = Workspace(store)
    first = workspace.draft("pairs", DIGEST, cut="by ten")
    first.finish_task("clean-0", {})
    second = workspace.draft("pairs", DIGEST, cut="by twenty")
    assert second.name != first.name
    assert second.task_done("clean-0") is None
    assert [workspace.draft("pairs", DIGEST, cut=cut).name for cut in ("by ten", "by twenty")] == [
        first.name,
        second.name,
    ]
    assert workspace.draft("pairs", DIGEST).name == second.name
    fill(first := workspace.draft("pairs", DIGEST, cut="by ten"))
    assert commit(first).store.files() == sorted([*FILES, FILE])


def test_work_whose_cut_is_not_recorded_is_gone_on_with_and_has_one_from_then_on(store: Store) -> None:
    workspace = Workspace(store)
    names = [workspace.draft("pairs", DIGEST, cut=cut).name for cut in ("", "by ten", "by twenty")]
    assert names[0] == names[1] != names[2]


def test_fresh_makes_a_new_version_beside_unfinished_and_finished_ones(store: Store) -> None:
    workspace = Workspace(store)
    workspace.draft("pairs", DIGEST).finish_task("clean-0", {})
    first = finished(store)
    fresh = workspace.draft("pairs", DIGEST, fresh=True)
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
    assert list(workspace.readable("pairs")) == [other, workspace.open("pairs", workspace.finished("pairs")[1]), ours]


def test_a_version_that_this_raycl_cannot_read_is_passed_over_and_refused_by_name(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    workspace = Workspace(store)
    older, other, damaged = finished(store), finished(store), finished(store)
    other.store.write(FILE, b'{"format": 2, "raycl": "9.1", "all": "else"}')
    damaged.store.write(FILE, b"{")
    assert workspace.find("pairs", DIGEST) == older
    assert list(workspace.readable("pairs")) == [older]
    said = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert [name in message for name, message in zip([damaged.name, other.name] * 2, said, strict=True)] == [True] * 4
    with pytest.raises(InputError, match=rf"{other.name}/{FILE} has format 2, and raycl"):
        workspace.open("pairs", other.name)
    with pytest.raises(CorruptRelease, match=rf"{damaged.name}/{FILE} is not a manifest"):
        workspace.open("pairs", damaged.name)


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


def test_a_versions_name_says_when_it_was_begun() -> None:
    assert str(versions.begun_at("20260131T235958123-0123456789ab")) == "2026-01-31 23:59:58.123000+00:00"
    assert versions.begun_at("r1") is None
