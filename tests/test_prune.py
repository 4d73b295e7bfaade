"""A workspace without its old versions: whole wherever that is killed, and never while a run is at work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raycl import config_file, lineage, prune
from raycl.config import Config
from raycl.errors import InputError
from raycl.storage import lease
from raycl.storage.manifest import FILE
from raycl.storage.store import Store
from raycl.storage.versions import Version, Workspace
from tests.command import Run, in_process, told
from tests.storage.builders import DyingStore, Killed


def config(folder: Path, *overrides: str) -> Config:
    tree = {"workspace": str(folder), "logs": [{"uri": "log"}]}
    return config_file.check(config_file.apply_overrides(tree, overrides))


def make(workspace: Workspace, stage: str, **inputs: str) -> Version:
    """A finished version of some files."""
    draft = workspace.draft(stage, lineage.digest(config(Path("w")), stage, inputs), fresh=True)
    for path in ("one", "folder/two", "folder/deeper/three"):
        draft.store.write(path, stage.encode())
    return draft.commit(inputs=inputs, config={}, counts={})


def run_of(workspace: Workspace, *, releases: bool) -> list[Version]:
    """What one run leaves."""
    pairs = make(workspace, "pairs", logs="log")
    towers = make(workspace, "towers", pairs=pairs.name)
    evaluation = make(workspace, "evaluations", towers=towers.name)
    if not releases:
        return [pairs, towers, evaluation]
    made = {"pairs": pairs.name, "towers": towers.name, "evaluation": evaluation.name}
    return [pairs, towers, evaluation, make(workspace, "releases", **made)]


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Workspace, list[Version]]:
    """A workspace of three runs, of which the first was released, and what the second one left, which may go."""
    workspace = Workspace(Store(str(tmp_path / "w")))
    run_of(workspace, releases=True)
    old = run_of(workspace, releases=False)
    run_of(workspace, releases=False)
    return workspace, old


def pruned(workspace: Workspace, *overrides: str, dry_run: bool = False) -> list[str]:
    found = prune.run(config(Path(workspace.store.uri), *overrides), workspace, 1, 0.0, dry_run=dry_run)
    return [one.name for one in found.removed]


def test_what_nothing_refers_to_goes_and_the_rest_stays_as_it_was(runs: tuple[Workspace, list[Version]]) -> None:
    workspace, old = runs
    gone = {f"{one.manifest.stage}/{one.name}/" for one in old}
    expected = [path for path in workspace.store.files() if not path.startswith(tuple(gone))]
    assert sorted(pruned(workspace, dry_run=True)) == sorted(pruned(workspace)) == sorted(one.name for one in old)
    assert workspace.store.files() == expected
    assert pruned(workspace) == []


def test_towers_that_the_config_names_stay(runs: tuple[Workspace, list[Version]]) -> None:
    workspace, (_, towers, evaluation) = runs
    assert pruned(workspace, f"train.start_from={towers.name}") == [evaluation.name]


def test_nothing_goes_while_a_run_is_at_work(runs: tuple[Workspace, list[Version]]) -> None:
    workspace, old = runs
    files = workspace.store.files()
    for stage in ("pairs", "towers", "releases", "searches"):
        draft = workspace.draft(stage, "a" * 64, fresh=True)
        # As another machine would have it: this very thread is not within its own work any more.
        path = "work/lease/000001.json"
        plain = json.loads(draft.store.read(path))
        draft.lease.release()
        plain["owner"] |= {"machine": "another", "pid": 4711}
        draft.store.write(path, json.dumps(plain).encode())
        for dry_run in (False, True):
            with pytest.raises(InputError, match=r"being made by process 4711 .* nothing is removed meanwhile"):
                pruned(workspace, dry_run=dry_run)
        draft.store.delete_folder("")
    held = lease.take(workspace.store.under("nightly"), "lease")
    held.release()
    plain = json.loads(workspace.store.read("nightly/lease/000001.json"))
    plain["owner"] |= {"machine": "another", "pid": 4712}
    workspace.store.write("nightly/lease/000001.json", json.dumps(plain).encode())
    with pytest.raises(InputError, match="being made by process 4712"):
        pruned(workspace)
    workspace.store.delete_folder("nightly")
    assert workspace.store.files() == files
    assert len(pruned(workspace)) == len(old)


def test_a_prune_that_is_killed_anywhere_leaves_whole_versions_and_nothing_to_go_on_with(
    runs: tuple[Workspace, list[Version]],
) -> None:
    workspace, old = runs
    saved = {path: workspace.store.read(path) for path in workspace.store.files()}
    for num_changes in range(1, 40):
        try:
            pruned(Workspace(DyingStore(workspace.store.uri, [None] * num_changes)))
            break
        except Killed:
            for stage in ("pairs", "towers", "evaluations", "releases"):
                for version in workspace.readable(stage):
                    version.complete("folder").verified("one", "folder")
            for one in old:
                assert workspace.unfinished(one.manifest.stage, one.manifest.fingerprint) == []
                draft = workspace.draft(one.manifest.stage, one.manifest.fingerprint)
                assert draft.name != one.name
                draft.lease.release()
                draft.store.delete_folder("")
            pruned(workspace)
            assert not any(workspace.store.files(f"{one.manifest.stage}/{one.name}") for one in old)
            for path, content in saved.items():
                workspace.store.write(path, content)
    else:
        pytest.fail("a prune makes more changes than this test lets it")


def test_a_release_that_cannot_be_read_and_a_pin_that_is_none_stop_it(runs: tuple[Workspace, list[Version]]) -> None:
    workspace, _ = runs
    with pytest.raises(InputError, match="--pin nothing: no such finished version"):
        prune.run(config(Path(workspace.store.uri)), workspace, 1, 0.0, ["nothing"])
    (release,) = workspace.finished("releases")
    workspace.store.write(f"releases/{release}/{FILE}", b"{}")
    with pytest.raises(InputError, match=f"releases/{release} cannot be read, so nobody knows what it was made from"):
        pruned(workspace)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return in_process(monkeypatch, capsys)


def test_the_command_tells_sizes_and_removes_what_it_said(
    run: Run, runs: tuple[Workspace, list[Version]], tmp_path: Path
) -> None:
    workspace, old = runs
    path = tmp_path / "shop.yaml"
    path.write_text(config_file.dump(config(Path(workspace.store.uri))), encoding="utf-8")
    assert told(run("prune", path, "--json"))["removed"] == []  # all is of today
    size = sum(one.manifest.sizes["one"] * len(one.manifest.sizes) for one in old)
    said = told(run("prune", path, "--grace-s", 0, "--dry-run", "--json"))
    assert (said["bytes"], said["dry_run"], len(said["removed"])) == (size, True, 3)
    ended = run("prune", path, "--grace-s", 0)
    assert ended.code == 0
    assert ended.out.splitlines()[-1] == f"removed {size} bytes in 3 versions of {workspace.store.uri}"
    for one in old:
        assert f"removed {one.manifest.stage} {one.name} (" in ended.out
        assert workspace.finished(one.manifest.stage)[-1] != one.name
