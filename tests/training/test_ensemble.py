"""Towers that are put together score as the mean of their members, in the towers, an evaluation and a release."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes

from raycl import cli, config_file, journey, lineage
from raycl.config import Config
from raycl.data import reader, states
from raycl.data.handoff import Pairs
from raycl.errors import ConfigError, CorruptRelease, InputError
from raycl.evaluation.tasks import item_features, user_features
from raycl.index import release
from raycl.model import embed, ensemble, weights
from raycl.model.ensemble import Shape
from raycl.model.users import UserSide
from raycl.serving.api import Query
from raycl.serving.retriever import Retriever
from raycl.storage.store import Store
from raycl.training.ensemble import config_of
from tests import tiny as builders


@pytest.fixture(scope="module")
def members(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> list[Config]:
    """Three configs of towers on the same pairs, of other widths and poolings."""
    config = builders.copied(builders.finished(tmp_path_factory.getbasetemp()), tmp_path_factory.mktemp("ensemble"))
    made = [config, builders.changed(config, "model", dim=4, pooling="attention")]
    made.append(builders.changed(config, "train", learning_rate=0.005))
    for one in made:
        journey.train(one, lambda _: None)
    return made


@pytest.fixture(scope="module")
def whole(members: list[Config]) -> Config:
    """The config of the ensemble, which is made."""
    found = config_of(members)
    assert journey.train(found, lambda _: None).worked
    return found


def towers(config: Config) -> Store:
    return lineage.towers(config, journey.workspace(config)).store


def scores(config: Config) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Of every held-out user for every item."""
    pairs = Pairs.of(lineage.pairs(config, journey.workspace(config)))
    side = UserSide.load(towers(config))
    found = []
    for path, _ in pairs.files("test"):
        sequences = reader.read(pairs.store, [path], "test", side.columns)
        found.append(side.vectors(states.before_targets(sequences, pairs.rules, "test"), user_features(pairs)))
    users, items = np.concatenate(found), embed.items(weights.load_item(towers(config)), item_features(pairs))
    np.testing.assert_allclose(np.linalg.norm(users, axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(items, axis=1), 1.0, atol=1e-5)
    return np.asarray(users @ items.T)


def test_a_score_is_the_mean_of_the_cosines_of_the_members(members: list[Config], whole: Config) -> None:
    alone = [scores(member) for member in members]
    assert alone[0].shape == (builders.NUM_USERS, builders.NUM_ITEMS)
    assert np.abs(alone[0] - alone[1]).max() > 0.1, "the members differ"
    np.testing.assert_allclose(scores(whole), np.mean(alone, axis=0), atol=1e-5)
    assert weights.load_spec(towers(whole)).model.dim == 8 + 4 + 8


def test_an_ensemble_is_evaluated_indexed_and_served_as_any_towers(members: list[Config], whole: Config) -> None:
    measured = journey.evaluate(whole)
    assert measured.version.manifest.inputs["towers"] == lineage.towers(whole, journey.workspace(whole)).name
    journey.index(whole)
    built = lineage.release(whole, journey.workspace(whole))
    served = Retriever.of(release.load(built.store))
    alone = []
    for member in members:
        journey.evaluate(member)
        journey.index(member)
        alone.append(Retriever.of(release.load(lineage.release(member, journey.workspace(member)).store)))
    query = Query(history=[104, 110, 122], k=20)
    answers = [{item.item_id: item.score for item in one.retrieve([query])[0].items} for one in (served, *alone)]
    for item, score in answers[0].items():
        parts = [answer[item] for answer in answers[1:] if item in answer]
        if len(parts) == len(members):
            assert score == pytest.approx(np.mean(parts), abs=2e-3)
    assert sum(all(item in answer for answer in answers) for item in answers[0]) >= 5


def test_an_average_is_that_of_vectors_which_were_turned_to_agree(members: list[Config]) -> None:
    pair = [members[0], members[2]]
    averaged = config_of(pair, "average")
    assert journey.train(averaged, lambda _: None).worked
    assert weights.load_spec(towers(averaged)).model.dim == 8
    pairs = Pairs.of(lineage.pairs(averaged, journey.workspace(averaged)))
    first, second = (embed.items(weights.load_item(towers(one)), item_features(pairs)) for one in pair)
    turned = second @ orthogonal_procrustes(second, first)[0]
    assert np.linalg.norm(turned - first) <= np.linalg.norm(second - first)
    mean = first + turned
    found = embed.items(weights.load_item(towers(averaged)), item_features(pairs))
    np.testing.assert_allclose(found, mean / np.linalg.norm(mean, axis=1, keepdims=True), atol=1e-5)
    scores(averaged)
    journey.evaluate(averaged)
    with pytest.raises(InputError, match=r"ensemble.combine=average needs vectors of one length, and .* have \[8, 4\]"):
        journey.train(config_of(members[:2], "average"), lambda _: None)


def test_towers_that_differ_by_a_rotation_are_turned_back_to_themselves() -> None:
    generator = torch.Generator().manual_seed(3)
    items = torch.randn(50, 6, generator=generator)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=generator))[0]
    first, second = ensemble.rotations([items, items @ turn])
    torch.testing.assert_close(first, torch.eye(6), atol=1e-5, rtol=0.0)
    torch.testing.assert_close(items @ turn @ second, items, atol=1e-4, rtol=0.0)


def test_an_ensemble_is_made_once(whole: Config) -> None:
    again = journey.train(whole, lambda _: None)
    assert not again.worked
    assert again.version.manifest.counts["members"] == 3


def test_the_command_writes_a_config_that_makes_the_same_towers(
    members: list[Config], whole: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = []
    for number, member in enumerate(members):
        paths.append(tmp_path / f"{number}.yaml")
        paths[-1].write_text(config_file.dump(member), encoding="utf-8")
    with pytest.raises(SystemExit) as end:
        cli.main(["ensemble", *map(str, paths), "--output", str(tmp_path / "whole.yaml"), "--json"])
    assert end.value.code == 0, capsys.readouterr().err
    assert config_file.load(tmp_path / "whole.yaml") == whole


REFUSED: dict[str, tuple[Callable[[list[Config], Config], list[Config]], type[Exception], str]] = {
    "one alone": (lambda members, _: members[:1], ConfigError, "ensemble.towers"),
    "an ensemble": (lambda members, whole: [members[0], whole], InputError, "is an ensemble itself: name its members"),
    "towers that are not there": (
        lambda members, _: [members[0], builders.changed(members[0], "train", epochs=9)],
        InputError,
        "has no finished towers of this config: run 'raycl train' first",
    ),
    "another workspace": (
        lambda members, _: [members[0], members[1].model_copy(update={"workspace": "elsewhere"})],
        ConfigError,
        "an ensemble is of one workspace",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_put_together_is_refused(case: str, members: list[Config], whole: Config) -> None:
    chosen, kind, message = REFUSED[case]
    with pytest.raises(kind, match=message):
        journey.train(config_of(chosen(members, whole)), lambda _: None)


def test_towers_of_other_pairs_are_refused(members: list[Config], whole: Config) -> None:
    other = builders.changed(members[0], "pairs", max_history=4)
    journey.pairs(other)
    journey.train(other, lambda _: None)
    with pytest.raises(InputError, match=r"was trained on pairs .*, and those of this config are"):
        journey.train(config_of([members[0], other]), lambda _: None)


def test_compressed_vectors_must_divide_all_dimensions(members: list[Config]) -> None:
    config = builders.changed(config_of(members[:2]), "index", pq_bytes=8)
    with pytest.raises(ConfigError, match=r"index.pq_bytes=8 must divide the 12 dimensions of ensemble.towers"):
        journey.train(config, lambda _: None)


def test_shapes_that_are_no_ensemble_have_one_member_and_broken_ones_are_refused(
    members: list[Config], whole: Config, tmp_path: Path
) -> None:
    plain = towers(members[0])
    assert weights.load_shape(plain) == Shape((weights.load_spec(plain),))
    assert len(weights.load_shape(towers(whole)).members) == 3
    store = Store(str(tmp_path))
    for path in (weights.USER_FILE, weights.ITEM_FILE):
        store.write(path, towers(whole).read(path))
    store.write(weights.CONFIG_FILE, plain.read(weights.CONFIG_FILE))
    with pytest.raises(CorruptRelease, match=r"user.safetensors does not fit config.json beside it"):
        weights.load_user(store)
