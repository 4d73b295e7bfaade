"""The stage on Ray against one process that ranks the catalogue for one user at a time."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raycl import journey, lineage
from raycl.config import Config
from raycl.data import reader
from raycl.data.handoff import Pairs
from raycl.errors import InputError, RayclError
from raycl.evaluation import stage
from raycl.evaluation.tasks import item_features, user_vectors
from raycl.model import embed, weights
from raycl.storage import tables
from raycl.storage.store import Store
from tests import tiny as builders
from tests.data.builders import packed
from tests.evaluation import naive

SHORT = {"resamples": 100, "perturbed_share": 0.0, "baselines": {"names": []}}
"""What leaves out all that a test is not about."""


def truth(config: Config) -> dict[str, dict[str, float]]:
    """Metrics of towers and popularity from the vectors of every test user, ranked one by one."""
    towers = lineage.towers(config, journey.workspace(config)).store
    pairs = Pairs.of(lineage.pairs(config, journey.workspace(config)))
    items = embed.items(weights.load_item(towers), item_features(pairs))
    counts = pairs.train_counts().tolist()
    ranked: dict[str, list[list[int]]] = {"towers": [], "popularity": []}
    targets = []
    for path, _ in pairs.files("test"):
        rows = packed(tables.read(pairs.store, path), "test")
        vectors = user_vectors(pairs, towers, reader.read(pairs.store, [path], "test"), "test")
        for row, vector in zip(rows, vectors, strict=True):
            context = set(row.items[: row.first_target])
            targets.append(set(row.items[row.first_target :]) - context)
            ranked["towers"].append(naive.rank((items @ vector).tolist(), context))
            ranked["popularity"].append(naive.rank(counts, context))
    ks = config.evaluation.ks
    return {name: naive.summary(lists, targets, ks, len(items)) for name, lists in ranked.items()}


def test_the_stage_equals_one_process(tiny: Config) -> None:
    version = lineage.evaluation(tiny, journey.workspace(tiny))
    expected = truth(tiny)
    assert version.manifest.counts == {"users": builders.NUM_USERS}
    for name in ("towers", "popularity"):
        found = version.manifest.facts[name]
        assert {metric: found[metric] for metric in expected[name]} == pytest.approx(expected[name], abs=1e-6)
    assert version.manifest.inputs["towers"] == lineage.towers(tiny, journey.workspace(tiny)).name


def test_a_finished_evaluation_is_found_again_and_force_makes_a_new_one(tiny: Config, tmp_path: Path) -> None:
    config = builders.copied(tiny, tmp_path)
    first = journey.evaluate(config)
    assert not first.worked
    again = journey.evaluate(config, force=True)
    assert again.worked
    assert again.version.name != first.version.name
    assert again.version.manifest.facts == first.version.manifest.facts


def test_other_cuts_are_another_evaluation(tiny: Config, tmp_path: Path) -> None:
    """A k beyond the catalogue finds everything, whichever the block."""
    config = builders.changed(builders.copied(tiny, tmp_path), "evaluation", ks=[500], users_per_block=1, **SHORT)
    outcome = journey.evaluate(config)
    assert outcome.worked
    assert outcome.version.manifest.facts["towers"]["recall_at_500"] == 1.0
    assert outcome.version.manifest.facts["towers"]["coverage_at_500"] == 1.0


@pytest.mark.parametrize("num_buckets", [1, 64])
def test_who_is_measured_does_not_depend_on_the_files(tiny: Config, tmp_path: Path, num_buckets: int) -> None:
    """Users of one event have no history at all, and files of the many buckets hold nobody else."""
    users_measured, popularity = [], []
    for buckets in (2, num_buckets):
        folder = tmp_path / str(buckets)
        builders.write_log(folder / "log")
        store = Store(str(folder / "log"))
        log = tables.read(store, "events.parquet")
        lone = pa.table(
            {"user_id": [500 + row for row in range(9)], "item_id": [101] * 9, "timestamp": [1_800_000_000] * 9}
        )
        tables.write(store, "events.parquet", pa.concat_tables([log, lone]))
        config = builders.changed(builders.tiny_config(folder), "pairs", num_buckets=buckets, min_user_events=1)
        config = builders.changed(config, "train", epochs=1)
        config = builders.changed(config, "evaluation", **SHORT)
        journey.pairs(config)
        journey.train(config, lambda _: None)
        manifest = journey.evaluate(config).version.manifest
        users_measured.append(manifest.counts["users"])
        # Diversity is measured in the towers' vectors, and other files train other towers.
        whole = manifest.facts["popularity"].items()
        popularity.append({name: value for name, value in whole if not name.startswith("diversity")})
    assert users_measured == [builders.NUM_USERS] * 2
    assert popularity[0] == pytest.approx(popularity[1])


def test_the_validation_part_is_another_evaluation(tiny: Config, tmp_path: Path) -> None:
    config = builders.changed(builders.copied(tiny, tmp_path), "evaluation", part="val", **SHORT)
    outcome = journey.evaluate(config)
    assert outcome.worked
    assert outcome.version.manifest.facts["part"] == "val"
    assert (
        outcome.version.manifest.facts["popularity"]
        != lineage.evaluation(tiny, journey.workspace(tiny)).manifest.facts["popularity"]
    )


def test_a_run_killed_between_files_goes_on_to_the_same_metrics(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = builders.copied(tiny, tmp_path)
    whole = lineage.evaluation(config, journey.workspace(config)).manifest
    shutil.rmtree(Path(config.workspace) / "evaluations")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(stage, "measured", die)
        with pytest.raises(KeyboardInterrupt):
            journey.evaluate(config)
    (draft,) = (Path(config.workspace) / "evaluations").iterdir()
    done = sorted((draft / "work" / "done").iterdir())
    assert [path.name for path in done] == ["baselines.json", "file-000000.json", "file-000001.json"]
    done[1].unlink()
    assert journey.evaluate(config).version.manifest.facts == whole.facts
    assert lineage.evaluation(config, journey.workspace(config)).name == draft.name


def test_a_damaged_tower_is_one_line(tiny: Config, tmp_path: Path) -> None:
    """The error of a task arrives as it was raised there."""
    config = builders.changed(builders.copied(tiny, tmp_path), "evaluation", ks=[3], **SHORT)
    towers = lineage.towers(config, journey.workspace(config)).store
    towers.write(weights.USER_FILE, towers.read(weights.USER_FILE)[:-1])
    with pytest.raises(RayclError) as told:
        journey.evaluate(config)
    assert weights.USER_FILE in str(told.value)
    assert "Traceback" not in str(told.value)


def test_a_test_part_with_nothing_to_find_is_refused(ray_local: None, tmp_path: Path) -> None:
    """Everybody's last event repeats an item that they met before."""
    builders.write_log(tmp_path / "log")
    log = tables.read(Store(str(tmp_path)), "log/events.parquet")
    users = log["user_id"].to_numpy()
    items = log["item_id"].to_numpy().copy()
    lasts = np.flatnonzero(np.diff(users, append=-1))
    items[lasts] = items[lasts - 2]
    tables.write(Store(str(tmp_path)), "log/events.parquet", log.set_column(1, "item_id", [items]))
    config = builders.tiny_config(tmp_path)
    journey.pairs(config)
    journey.train(config, lambda _: None)
    with pytest.raises(InputError, match=r"no user with an item to find: look at pairs\.split"):
        journey.evaluate(config)
