"""The releases of a workspace: told, promoted, rolled back, compared, and pruned but for those in use."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

from raycl import journey
from raycl.config import Config, IndexConfig
from raycl.errors import CorruptRelease, GateRefused, InputError
from raycl.index import build, deltas, publish, release, release_diff, releases
from raycl.index.plan import choose
from raycl.storage import lease, pointer
from raycl.storage.manifest import FILE
from raycl.storage.pointer import Pointer, Publication
from raycl.storage.store import Store
from raycl.storage.versions import WORK, Workspace
from tests import tiny as builders
from tests.index.builders import built, of_plan, unit_vectors
from tests.storage.builders import DyingStore, Killed, together

DAY_S = 86_400.0


@pytest.fixture(params=["local", "s3"])
def several(
    request: pytest.FixtureRequest, pair_of_releases: tuple[Config, Config], tmp_path: Path
) -> tuple[Workspace, list[str]]:
    """A workspace, on disk and on S3, with three releases that the gate let pass, the oldest first; none is published.

    The third is a copy of the first under a later name, so that rolling back has somewhere to go.
    """
    config = pair_of_releases[0]
    source = journey.workspace(config)
    names = [built(one).name for one in pair_of_releases]
    store = Store(str(tmp_path / "workspace")) if request.param == "local" else request.getfixturevalue("s3_store")
    later = f"{int(names[1][:8]) + 1}{names[1][8:]}"
    for name, other in ((names[0], names[0]), (names[1], names[1]), (names[0], later)):
        folder = source.store.under(f"releases/{name}")
        for path in folder.files():
            content = folder.read(path)
            store.write(f"releases/{other}/{path}", content.replace(name.encode(), other.encode()))
    return Workspace(store), [*names, later]


def published(workspace: Workspace, *names: str) -> None:
    for name in names:
        publish.publish(workspace, workspace.open("releases", name))


def test_a_list_tells_what_is_current_and_what_was_when(several: tuple[Workspace, list[str]]) -> None:
    workspace, (first, second, third) = several
    published(workspace, first, second, first)
    rows = {row["release"]: row for row in releases.listed(workspace)}
    assert list(rows) == [third, second, first]
    assert [rows[name]["state"] for name in (first, second, third)] == ["current", "published", "ready"]
    assert rows[first]["published"].startswith("1 (20")
    assert ", 3 (20" in rows[first]["published"]
    assert rows[first]["items"] == builders.NUM_ITEMS
    assert rows[third]["published"] == ""


def test_what_is_shown_of_a_release_names_every_file_and_where_it_came_from(
    several: tuple[Workspace, list[str]],
) -> None:
    workspace, (first, _, _) = several
    with pytest.raises(InputError, match="no published release: name one of 'raycl release list'"):
        releases.named(workspace, None)
    published(workspace, first)
    told = releases.described(workspace, releases.named(workspace, None))
    assert told["release"] == first
    assert told["current"]
    assert [one["number"] for one in told["published"]] == [1]
    assert set(told["files"]) | {FILE} == set(workspace.open("releases", first).store.files())
    assert told["lineage"]["towers"] == workspace.open("releases", first).manifest.inputs["towers"]


def test_rollback_goes_back_by_first_publication_and_never_to_what_it_left(
    several: tuple[Workspace, list[str]],
) -> None:
    workspace, (first, second, third) = several
    with pytest.raises(InputError, match="no release that was published before any other"):
        releases.rollback(workspace)
    published(workspace, first, second, third)
    assert releases.rollback(workspace) == Pointer(4, second)
    assert releases.rollback(workspace) == Pointer(5, first) == pointer.current(workspace.store)
    with pytest.raises(InputError, match=f"no release that was published before {first}"):
        releases.rollback(workspace)
    assert releases.rollback(workspace, third) == Pointer(6, third)
    assert releases.rollback(workspace, first) == Pointer(7, first)


def shared(one: str, other: str) -> str:
    """With what both begin."""
    return next(one[:size] for size in range(len(one), -1, -1) if other.startswith(one[:size]))


def test_a_release_is_named_by_a_beginning_that_no_other_has(several: tuple[Workspace, list[str]]) -> None:
    workspace, (first, second, third) = several
    for name in (first, second, third):
        others = [other for other in (first, second, third) if other != name]
        enough = 1 + max(len(shared(name, other)) for other in others)
        assert releases.named(workspace, name).name == releases.named(workspace, name[:enough]).name == name
    both = shared(first, second)
    alike = ", ".join(name for name in (third, second, first) if name.startswith(both))
    with pytest.raises(InputError, match=f"'{both}' is the beginning of [23] releases in .*: name one of {alike}$"):
        releases.named(workspace, both)
    with pytest.raises(InputError, match=f"'9999' is no release, .*: name one of {third}, {second}, {first}$"):
        releases.named(workspace, "9999")


def test_no_release_at_all_is_told_with_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is none; 'raycl run' makes the first"):
        releases.named(Workspace(Store(str(tmp_path))), "2026")


def test_rollback_is_refused_to_what_was_never_published_or_is_damaged(several: tuple[Workspace, list[str]]) -> None:
    workspace, (first, second, third) = several
    published(workspace, first, second)
    with pytest.raises(InputError, match=f"release {third} was never published: use 'raycl release promote'"):
        releases.rollback(workspace, third)
    workspace.store.write(f"releases/{first}/{release.shard_file(1)}", b"")
    with pytest.raises(CorruptRelease, match=r"shards/00001\.faiss"):
        releases.rollback(workspace)
    assert pointer.current(workspace.store) == Pointer(2, second)


def test_verify_names_what_is_wrong_with_which_release(several: tuple[Workspace, list[str]]) -> None:
    workspace, (first, second, third) = several
    workspace.store.write(f"releases/{second}/{release.CATALOGUE_FILE}", b"another")
    found = releases.verified([workspace.open("releases", name) for name in (first, second, third)])
    assert [found[first], found[third]] == ["", ""]
    assert f"{second}/{release.CATALOGUE_FILE} has SHA-256" in found[second]


def test_two_that_promote_at_once_both_succeed_under_numbers_of_their_own(several: tuple[Workspace, list[str]]) -> None:
    workspace, names = several
    calls = [functools.partial(publish.publish, workspace, workspace.open("releases", name)) for name in names]
    got = together(calls)
    assert sorted(one.number for one in got) == [1, 2, 3]
    assert pointer.current(workspace.store) == max(got, key=lambda one: one.number)


def history(*releases_at_s: tuple[str, float]) -> list[Publication]:
    return [Publication(Pointer(number, name), at_s) for number, (name, at_s) in enumerate(releases_at_s, start=1)]


def test_kept_are_those_that_were_current_last_whatever_was_built() -> None:
    names = ["a", "b", "c", "d", "e"]
    ran = history(("a", 0), ("b", 1), ("c", 2), ("a", 3), ("d", 4))
    assert releases.chosen(names, ran, 100, 2, 0, ()).removed == ("b", "c")
    assert releases.chosen(names, ran, 100, 3, 0, ()).removed == ("b",)
    assert releases.chosen(names, ran, 100, 9, 0, ()).removed == ()
    assert releases.chosen(names, ran, 100, 1, 0, ()).removed == ("a", "b", "c")
    assert releases.chosen(names, ran, 100, 1, 0, ()).reasons == {
        "d": "current",
        "e": "never published, and newer than the oldest that is kept",
    }


def test_what_was_current_within_the_grace_is_kept_and_so_is_what_is_pinned() -> None:
    ran = history(("a", 0), ("b", 50), ("c", 90))
    kept = releases.chosen(["a", "b", "c"], ran, 100, 1, 20, ()).reasons
    assert kept == {"b": "was current 10 s ago, and a server may still load it", "c": "current"}
    assert releases.chosen(["a", "b", "c"], ran, 100, 1, 51, ()).removed == ()
    assert releases.chosen(["a", "b", "c"], ran, 100, 1, 0, ["a"]).removed == ("b",)


def test_refused_builds_go_once_nothing_older_is_kept_and_do_not_push_out_published_ones() -> None:
    names = ["a", "b", "c1", "c2", "c3"]
    assert releases.chosen(names, history(("a", 0), ("b", 1)), 100, 2, 0, ()).removed == ()
    assert releases.chosen(["a", "b", "c"], history(("c", 1)), 100, 2, 0, ()).removed == ("a", "b")
    assert releases.chosen(names, [], 100, 1, 0, ()).removed == ()


def test_a_pruned_release_is_gone_with_its_deltas_and_the_others_are_whole(
    several: tuple[Workspace, list[str]],
) -> None:
    workspace, (first, second, third) = several
    published(workspace, first, second, third)
    for name in (first, third):
        workspace.store.write(f"{deltas.FOLDER}/{name}/one", b"delta")
    said = releases.prune(workspace, 1, 0.0, dry_run=True)
    assert said.removed == (first, second)
    assert workspace.finished("releases") == [first, second, third]
    assert releases.prune(workspace, 1, DAY_S).removed == ()
    assert releases.prune(workspace, 1, 0.0, [second]).removed == (first,)
    assert workspace.finished("releases") == [second, third]
    assert workspace.store.files(f"releases/{first}") == workspace.store.files(publish.PRUNED) == []
    assert workspace.store.files(deltas.FOLDER) == [f"{deltas.FOLDER}/{third}/one"]
    release.load(workspace.open("releases", third).store)
    assert releases.rollback(workspace) == Pointer(4, second)
    with pytest.raises(InputError, match=f"--pin {first}: no such finished release"):
        releases.prune(workspace, 1, 0.0, [first])


def test_a_release_that_is_published_while_it_is_pruned_stays(
    several: tuple[Workspace, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pointer comes between the choice and the mark."""
    workspace, (first, second, _) = several
    published(workspace, first, second)
    write = Store.write

    def published_first(store: Store, path: str, content: bytes) -> None:
        if path == publish.mark(first):
            pointer.publish(store, first)
        write(store, path, content)

    monkeypatch.setattr(Store, "write", published_first)
    found = releases.prune(workspace, 1, 0.0)
    assert found.removed == ()
    assert found.reasons[first] == "published meanwhile"
    release.load(workspace.open("releases", first).store)
    assert workspace.store.files(publish.PRUNED) == []


def test_a_release_that_is_pruned_while_it_is_published_does_not_stay_current(
    several: tuple[Workspace, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark comes between the last look and the pointer."""
    workspace, (first, second, _) = several
    published(workspace, second)
    point = pointer.publish

    def marked_first(store: Store, name: str) -> Pointer:
        if name == first:
            store.write(publish.mark(first), b"{}")
        return point(store, name)

    monkeypatch.setattr(pointer, "publish", marked_first)
    with pytest.raises(InputError, match=f"release {first} is being pruned"):
        published(workspace, first)
    assert pointer.current(workspace.store) == Pointer(3, second)
    with pytest.raises(InputError, match="is being pruned"):
        published(workspace, first)
    assert pointer.current(workspace.store) == Pointer(3, second)


@pytest.mark.parametrize("several", ["local"], indirect=True)
def test_a_prune_that_is_killed_anywhere_leaves_whole_releases_and_is_finished_by_the_next(
    several: tuple[Workspace, list[str]],
) -> None:
    workspace, (first, second, third) = several
    published(workspace, first, second, third)
    workspace.store.write(f"releases/{first}/{WORK}/lease/000001.json", b"{}")  # of a commit that was killed
    saved = {path: workspace.store.read(path) for path in workspace.store.files()}
    for num_changes in range(1, 40, 3):
        dying = Workspace(DyingStore(workspace.store.uri, [None] * num_changes))
        try:
            releases.prune(dying, 1, 0.0, [second])
            break
        except Killed:
            assert pointer.current(workspace.store) == Pointer(3, third)
            for name in workspace.finished("releases"):
                release.verify(workspace.open("releases", name).store)
            releases.prune(workspace, 1, 0.0, [second])
            assert workspace.store.files(f"releases/{first}") == workspace.store.files(publish.PRUNED) == []
            for path, content in saved.items():
                workspace.store.write(path, content)
    else:
        pytest.fail("a prune makes more changes than this test lets it")


def test_a_release_that_is_built_anew_is_not_taken_for_the_rest_of_a_prune(
    several: tuple[Workspace, list[str]],
) -> None:
    workspace, (first, second, third) = several
    published(workspace, second, third)
    workspace.store.delete(f"releases/{first}/{FILE}")
    workspace.store.write(publish.mark(first), b"{}")
    held = lease.first(workspace.store.under(f"releases/{first}"), f"{WORK}/lease")
    assert held is not None
    files = workspace.store.files(f"releases/{first}")
    releases.prune(workspace, 2, 0.0)
    assert workspace.store.files(f"releases/{first}") == files
    assert workspace.store.files(publish.PRUNED) == []
    held.release()


def test_a_release_differs_in_nothing_from_itself(pair_of_releases: tuple[Config, Config]) -> None:
    config = pair_of_releases[0]
    found = release_diff.between(config, journey.workspace(config), built(config), built(config))
    assert (found.num_in, found.num_out, found.config) == (0, 0, ())
    assert all(change.before == change.after for change in found.metrics if change.name != "previous")
    assert found.answers is not None
    assert (found.answers.agreement, found.answers.moved) == (1.0, ())


def test_a_diff_names_the_setting_and_the_metrics_that_changed_and_the_agreement_of_the_gate(
    pair_of_releases: tuple[Config, Config],
) -> None:
    first, second = pair_of_releases
    found = release_diff.between(second, journey.workspace(first), built(first), built(second))
    changed = {change.name: (change.before, change.after) for change in found.config}
    assert changed["train.learning_rate"] == (0.02, 0.005)
    assert {"index_recall", "ndcg", "towers.recall_at_10"} <= {change.name for change in found.metrics}
    evidence = releases.described(journey.workspace(first), built(second))["gate"]["evidence"]
    assert found.answers is not None
    assert found.answers.agreement == evidence["previous"]["agreement"] < 1.0
    assert found.answers.moved[0].title.startswith("Item ")
    assert "learning_rate" in str(found.tables()["config"])
    assert found.lines()[0] == "items: 30 to 30; 0 in, 0 out"


def test_a_diff_counts_items_that_came_and_went(tiny: Config, tmp_path: Path) -> None:
    """A shard that lost its items stands for a catalogue that did."""
    config = builders.copied(tiny, tmp_path)
    workspace, version = journey.workspace(config), built(config)
    other = workspace.store.under(f"releases/20990101T000000000-{version.name[-12:]}")
    for path in version.store.files():
        other.write(path, version.store.read(path))
    empty = version.store.read_with(release.shard_file(1), build.read)
    lost = build.ids(empty)
    empty.reset()
    with other.open_output(release.shard_file(1)) as stream:
        build.write(empty, stream)
    copy = workspace.open("releases", "20990101T000000000-" + version.name[-12:])
    found = release_diff.between(config, workspace, version, copy)
    assert (found.num_in, found.num_out) == (0, len(lost))
    assert set(found.items_out) == {builders.FIRST_ITEM + int(row) for row in lost}
    back = release_diff.between(config, workspace, copy, version)
    assert (back.num_in, back.num_out) == (len(lost), 0)


@pytest.mark.parametrize("kind", ["flat", "ivf_flat", "sq8", "ivf_pq", "hnsw"])
def test_the_ids_of_a_shard_are_those_that_were_added(kind: str) -> None:
    vectors = unit_vectors(300, 16)
    plan = choose(IndexConfig(kind=kind, num_lists=4 if "ivf" in kind else None), 300, 16, 0.9)  # type: ignore[arg-type]
    index = of_plan(plan, vectors, np.arange(300) % 3, 3)
    for number, shard in enumerate(index._shards):
        np.testing.assert_array_equal(build.ids(shard), np.arange(number, 300, 3))


def test_a_refused_release_is_not_promoted(pair_of_releases: tuple[Config, Config], tmp_path: Path) -> None:
    config = builders.changed(builders.copied(pair_of_releases[0], tmp_path), "gate", min_recall=1.0)
    version = journey.index(config).version
    with pytest.raises(GateRefused, match="is not published: recall@10"):
        published(journey.workspace(config), version.name)
    assert {row["release"]: row["state"] for row in releases.listed(journey.workspace(config))}[
        version.name
    ] == "refused"
