"""Training that begins with finished towers: what they knew they still know, under whatever row it lies now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from raycl import config_file, journey, lineage
from raycl.config import Config
from raycl.data import ray_pairs
from raycl.data.features import Encoder
from raycl.data.handoff import Pairs
from raycl.errors import InputError
from raycl.evaluation.tasks import item_features
from raycl.model import embed, weights
from raycl.model.towers import UserTower
from raycl.storage.store import Store
from raycl.storage.versions import Draft, Version, Workspace
from raycl.training import ensemble, loop, start
from raycl.training.job import Job
from raycl.training.prepare import prepare
from tests import tiny
from tests.data import whole


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs are made in this process."""
    whole.without_ray(monkeypatch)


def config_of(folder: Path, **sections: Any) -> Config:
    """The tiny log without numbers, whose scale a new log changes."""
    if not (folder / "log").exists():
        tiny.write_log(folder / "log")
    tree = tiny.tiny_tree(folder)
    tree["logs"] = [{"uri": str(folder / "log" / "events*.parquet")}]
    for side in ("items", "users"):
        tree[side]["features"] = tree[side]["features"][:1]
    tree["train"]["epochs"] = 1
    for name, values in sections.items():
        tree[name] |= values
    return config_file.check(tree)


def trained(config: Config) -> tuple[Version, Version]:
    """Pairs, and towers with the weights of before the first step, which are as good as any."""
    workspace = journey.workspace(config)
    pairs, _ = ray_pairs.run(config, workspace)
    draft = workspace.draft("towers", lineage.digest(config, "towers", pairs.name))
    job = begun(workspace, config, pairs, draft)
    weights.save(draft.store, job.spec, loop.build(job), job.inputs.items)
    made = draft.commit(inputs={"pairs": pairs.name}, config=lineage.part(config, "towers"), counts={})
    return pairs, made


def begun(workspace: Workspace, config: Config, pairs: Version, draft: Draft) -> Job:
    start.leave(workspace, config, pairs, draft)
    return prepare(config, Pairs.of(pairs), draft.store)


def grow(folder: Path) -> None:
    """New items of a new category that is the most frequent one, so that every category has another token."""
    new = list(range(501, 540))
    users = [tiny.FIRST_USER + number % tiny.NUM_USERS for number in range(len(new))]
    day = {"user_id": users, "item_id": new, "timestamp": [1_700_100_000 + place for place in range(len(new))]}
    pq.write_table(pa.table(day), folder / "log" / "events-2.parquet")
    items = pq.read_table(folder / "log" / "items.parquet")
    more = {"item_id": new, "title": [f"New {item}" for item in new], "category": ["kite"] * 39, "price": [1.0] * 39}
    pq.write_table(pa.concat_tables([items, pa.table(more)]), folder / "log" / "items.parquet")


def vectors(tower: Any, pairs: Version) -> dict[Any, np.ndarray[Any, Any]]:
    """By id, of the items that training has seen."""
    found = embed.items(tower.eval(), item_features(Pairs.of(pairs)))
    ids = Pairs.of(pairs).vocabulary()["item"].to_pylist()
    return {item: found[row] for row, item in enumerate(ids) if bool(tower.known[row])}


@pytest.mark.parametrize(
    "sections",
    [{}, {"model": {"share_items": True}}, {"pairs": {"rare_items": "hash", "min_item_events": 9, "rare_buckets": 7}}],
    ids=["own events", "shared items", "rare items"],
)
def test_every_item_and_value_begins_with_what_it_was(tmp_path: Path, sections: dict[str, Any]) -> None:
    config = config_of(tmp_path, **sections)
    old_pairs, old = trained(config)
    grow(tmp_path)
    going_on = tiny.changed(config, "train", start_from=old.name)
    workspace = journey.workspace(config)
    pairs, _ = ray_pairs.run(going_on, workspace)
    draft = workspace.draft("towers", lineage.digest(going_on, "towers", pairs.name))
    job = begun(workspace, going_on, pairs, draft)
    values = [Pairs.of(one).encoders("items").features[0].values for one in (old_pairs, pairs)]
    assert (values[0][0], values[1][0]) == ("lamp", "kite")

    towers = loop.build(job)
    before, now = vectors(weights.load_item(old.store), old_pairs), vectors(towers.item, pairs)
    stable = set(before) & set(now)
    if "pairs" in sections:
        stable = {item for item in stable if is_rare(item, old_pairs) == is_rare(item, pairs)}
    assert len(stable) >= 20
    for item in stable:
        np.testing.assert_allclose(now[item], before[item], atol=1e-6)
    fresh = loop.build(prepare(config, Pairs.of(pairs), Store(str(tmp_path / "fresh"))))
    others = vectors(fresh.item, pairs)
    assert not any(np.allclose(others[item], before[item], atol=1e-3) for item in stable)
    torch.testing.assert_close(towers.user.empty, weights.load_user(old.store).empty)


def is_rare(item: int, pairs: Version) -> bool:
    found = Pairs.of(pairs)
    rows, shared = found.embedding_rows(), found.rules.rare_buckets
    assert rows is not None
    place = pc.index(found.vocabulary()["item"], item).as_py()
    return bool(rows[place] < shared)


def test_histories_say_what_they_said(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    old_pairs, old = trained(config)
    grow(tmp_path)
    going_on = tiny.changed(config, "train", start_from=old.name)
    workspace = journey.workspace(config)
    pairs, _ = ray_pairs.run(going_on, workspace)
    job = begun(workspace, going_on, pairs, workspace.draft("towers", lineage.digest(going_on, "towers", pairs.name)))
    before = weights.load_user(old.store)
    assert isinstance(before, UserTower)
    tables = [before.history, loop.build(job).user.history]
    ids = [Pairs.of(one).vocabulary()["item"].to_pylist() for one in (old_pairs, pairs)]
    for row, item in enumerate(ids[0]):
        assert tables[0] is not None
        assert tables[1] is not None
        torch.testing.assert_close(tables[1].weight[ids[1].index(item) + 1], tables[0].weight[row + 1])


def test_without_a_start_nothing_is_left(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    workspace = journey.workspace(config)
    pairs, _ = ray_pairs.run(config, workspace)
    draft = workspace.draft("towers", "0" * 64)
    assert begun(workspace, config, pairs, draft).start is None
    assert not draft.store.exists(start.FILE)


@pytest.mark.parametrize(
    ("sections", "problem"),
    [
        ({"model": {"dim": 16}}, "were made with another 'model' section"),
        ({"pairs": {"max_history": 6}}, "read histories of 5, these have 6"),
        ({"pairs": {"rare_items": "hash", "min_item_events": 2}}, "other pairs.rare_items or pairs.rare_buckets"),
        ({"items": {"features": []}}, "were made with other features of items"),
    ],
)
def test_towers_that_do_not_fit_are_refused_by_the_setting(
    tmp_path: Path, sections: dict[str, Any], problem: str
) -> None:
    _, old = trained(config_of(tmp_path))
    other = config_of(tmp_path, train={"start_from": old.name}, **sections)
    workspace = journey.workspace(other)
    pairs, _ = ray_pairs.run(other, workspace)
    with pytest.raises(InputError, match=rf"train.start_from={old.name}: .*{problem}; set it to null"):
        start.leave(workspace, other, pairs, workspace.draft("towers", "0" * 64))


@pytest.mark.parametrize(("combine", "times"), [("concatenate", 2), ("average", 1)])
def test_an_ensemble_is_nothing_to_begin_with_though_its_vectors_are_as_long(
    tmp_path: Path, combine: str, times: int
) -> None:
    config = config_of(tmp_path)
    pairs, one = trained(config)
    _, other = trained(config_of(tmp_path, train={"epochs": 2}))
    workspace = journey.workspace(config)
    tree = config.model_dump(mode="json") | {"ensemble": {"towers": [one.name, other.name], "combine": combine}}
    whole, _ = ensemble.run(config_file.check(tree), workspace, pairs)
    wide = config_of(tmp_path, model={"dim": times * config.model.dim}, train={"start_from": whole.name})
    assert weights.load_spec(whole.store).model == wide.model
    with pytest.raises(InputError, match=rf"train.start_from={whole.name}: .* are an ensemble, and training makes one"):
        start.leave(workspace, wide, pairs, workspace.draft("towers", "0" * 64))


def test_towers_that_are_gone_are_named(tmp_path: Path) -> None:
    config = config_of(tmp_path, train={"start_from": "20990101T000000000-000000000000"})
    workspace = journey.workspace(config)
    pairs, _ = ray_pairs.run(config, workspace)
    with pytest.raises(InputError, match=r"20990101T000000000-000000000000 has no manifest\.json"):
        start.leave(workspace, config, pairs, workspace.draft("towers", "0" * 64))


def test_a_token_goes_with_its_value_and_a_bucket_with_its_number() -> None:
    old = Encoder("a", "categorical", "", 0, ("x", "y", "z"))
    new = Encoder("a", "categorical", "", 0, ("new", "z", "x"))
    into, of = start._token_rows(old, new)
    assert list(zip(into.tolist(), of.tolist(), strict=True)) == [(0, 0), (1, 1), (3, 4), (4, 2)]
    hashed = Encoder("a", "hashed", "", 3)
    into, of = start._token_rows(hashed, hashed)
    assert into.tolist() == of.tolist() == [0, 1, 2, 3, 4]
