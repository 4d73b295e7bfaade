"""Training in two parts: of the items alone, and then of users with what the first part left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raycl import config_file, config_pretrain, journey, lineage, nightly
from raycl.config import Config
from raycl.errors import ConfigError, InputError
from raycl.index import release
from raycl.storage import pointer
from raycl.storage.versions import Version, Workspace, fingerprint
from tests import tiny as builders
from tests.here import without_ray

PRETRAIN = {"terms": ["reconstruction", "masked_features"], "epochs": 3, "learning_rate": 0.05}


def config_of(folder: Path, **train: Any) -> Config:
    tree = builders.tiny_tree(folder)
    tree["train"] |= {"pretrain": PRETRAIN, **train}
    tree["model"]["item_id"] = False
    return config_file.check(tree)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Config]:
    folder = tmp_path_factory.mktemp("pretraining")
    builders.write_log(folder / "log")
    made = config_of(folder)
    with pytest.MonkeyPatch.context() as patched:
        without_ray(patched)
        journey.pairs(made)
        yield made


def before(config: Config) -> Version:
    first = config_pretrain.before(config)
    assert first is not None
    return lineage.towers(first, journey.workspace(config))


def test_training_begins_with_what_was_learned_of_the_items_and_both_are_found_again(config: Config) -> None:
    with pytest.raises(InputError, match=r"no finished towers of this config: run 'raycl train'"):
        lineage.towers(config, journey.workspace(config))
    made = journey.train(config, lambda _: None)
    first = before(config)
    assert made.worked
    assert made.version.manifest.inputs["started_from"] == first.name
    assert lineage.towers(config, journey.workspace(config)).name == made.version.name
    assert len(first.manifest.facts["losses"]) == 3
    assert first.manifest.facts["losses"][-1] < first.manifest.facts["losses"][0]
    again = journey.train(config, lambda _: None)
    assert (again.version.name, again.worked) == (made.version.name, False)


def test_a_night_finds_both_parts_finished(config: Config) -> None:
    made = journey.train(config, lambda _: None)
    steps = {step.stage: step for step in nightly.plan(config)}
    assert steps["train"].would == "nothing"
    assert made.version.name in steps["train"].reason


def test_without_it_training_begins_with_nothing_and_learns_otherwise(config: Config) -> None:
    made = journey.train(config, lambda _: None).version
    plain = config.model_copy(update={"train": config.train.model_copy(update={"pretrain": None})})
    other = journey.train(plain, lambda _: None).version
    assert "started_from" not in other.manifest.inputs
    assert other.manifest.facts["losses"] != made.manifest.facts["losses"]


def test_towers_that_are_named_are_begun_with_in_place_of_it(config: Config) -> None:
    made = journey.train(config, lambda _: None)
    named = config_pretrain.after(config, made.version.name)
    assert config_pretrain.before(named) is None


def test_another_pretraining_is_another_version(config: Config) -> None:
    made = journey.train(config, lambda _: None)
    other = config_file.check(config.model_dump(mode="json") | {"train": {**config.train.model_dump(mode="json")}})
    assert lineage.towers(other, journey.workspace(config)).name == made.version.name
    longer = config_of(Path(config.workspace).parent, pretrain={**PRETRAIN, "epochs": 1})
    with pytest.raises(InputError):
        lineage.towers(longer, journey.workspace(longer))


@pytest.mark.parametrize(
    ("pretrain", "told"),
    [
        ({"terms": "softmax"}, "train.pretrain.terms.0.kind=softmax: unknown kind; known kinds: masked_features"),
        ({"terms": []}, "train.pretrain.terms"),
        ({"terms": ["reconstruction"] * 2}, "train.pretrain.terms.1.kind=reconstruction is that of train.pretrain"),
        ({"terms": {"kind": "reconstruction", "weight": 0}}, "train.pretrain.terms.0.weight=0"),
    ],
)
def test_what_cannot_be_learned_without_users_is_refused(tmp_path: Path, pretrain: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(tmp_path, pretrain=pretrain)
    assert str(caught.value).startswith(told)


def test_an_autoencoder_of_nothing_is_refused(tmp_path: Path) -> None:
    tree = builders.tiny_tree(tmp_path)
    tree["items"]["features"] = []
    tree["train"]["pretrain"] = {"terms": "reconstruction"}
    with pytest.raises(ConfigError, match=r"train\.pretrain\.terms\.0\.kind=reconstruction reads item features back"):
        config_file.check(tree)


def published(workspace: Workspace, towers: Version) -> None:
    """Make a release of these towers current, which has nothing but its lineage."""
    draft = workspace.draft("releases", fingerprint(towers.name))
    of = release.Lineage(towers.manifest.inputs["pairs"], towers.name, "none", "none", "none")
    draft.store.write(release.LINEAGE_FILE, json.dumps(asdict(of)).encode())
    pointer.publish(workspace.store, draft.commit(inputs={}, config={}, counts={}).name)


def test_the_second_of_two_nights_goes_on_from_the_first_and_pretrains_no_more(tmp_path: Path) -> None:
    """What was pretrained counts as no night: on the same log each begins again with what it began with."""
    builders.write_log(tmp_path / "log")
    tree = config_of(tmp_path, epochs=1).model_dump(mode="json")
    tree["logs"][0]["uri"] = str(tmp_path / "log" / "events*.parquet")
    config = config_file.check(tree | {"nightly": {"fine_tune": {"epochs": 1, "most_in_a_row": 1}}})
    workspace = journey.workspace(config)

    def night() -> Version:
        made_from = journey.pairs(config).version
        towers = journey.train(nightly.tonight(config, workspace, made_from)[0], lambda _: None).version
        published(workspace, towers)
        assert {step.stage: step.would for step in nightly.plan(config)}["train"] == "nothing"
        return towers

    def a_new_day(number: int) -> None:
        day = {"user_id": [1, 2, 3], "item_id": [101, 102, 103], "timestamp": [1_800_000_000 + number] * 3}
        pq.write_table(pa.table(day), tmp_path / "log" / f"events-{number}.parquet")

    with pytest.MonkeyPatch.context() as patched:
        without_ray(patched)
        first = night()
        pretrained = before(config)
        assert first.manifest.inputs["started_from"] == pretrained.name
        a_new_day(1)
        second = night()
        assert second.manifest.inputs["started_from"] == first.name
        assert sorted(workspace.finished("towers")) == sorted([pretrained.name, first.name, second.name])
        a_new_day(2)
        third, why = nightly.tonight(config, workspace, journey.pairs(config).version)
    assert why == "from the start, after 1 nights that went on from the towers before"
    assert config_pretrain.before(third) == config_pretrain.before(config)


def test_a_search_does_not_pretrain(tmp_path: Path) -> None:
    tree = builders.tiny_tree(tmp_path)
    tree["train"]["pretrain"] = {"terms": "reconstruction"}
    tree["search"] = {"fields": {"model.dim": [8, 16]}}
    with pytest.raises(ConfigError, match=r"train\.pretrain trains twice"):
        config_file.check(tree)
