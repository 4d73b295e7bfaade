"""Every recipe from logs to answers, on tiny tables of the same shape, its tasks one after another in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from raycl import answers, config_file, journey, ray_runtime
from raycl.answers import Answered
from raycl.config import Config
from raycl.data.handoff import Pairs
from raycl.errors import InputError
from raycl.storage import pointer
from raycl.storage.versions import Version
from raycl.text import ray_encode
from tests import recipe_data
from tests.here import without_ray

RECIPES = sorted((Path(__file__).resolve().parent.parent / "jobs" / "recipes").glob("*.yaml"))
SMALL = (
    "train.epochs=2",
    "train.global_batch_size=32",
    "train.validation.users=20",
    "model.dim=8",
    "pairs.num_buckets=2",
    "evaluation.ks=[5]",
    "evaluation.auc=false",
    "evaluation.perturbed_share=0.0",
    "evaluation.resamples=100",
    "evaluation.baselines.names=[item_knn]",
    "gate.min_over_popularity=0.0",
    "gate.index_recall_at=5",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipes")
    recipe_data.write(folder)
    return folder


def small(path: Path, data: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> Config:
    """The recipe on ``data``, shorter; a projection stands in for a language model, which is 90 MB."""
    monkeypatch.setenv("RAYCL_DATA", str(data))
    monkeypatch.setenv("RAYCL_WORKSPACE", str(workspace))
    plain = yaml.safe_load(path.read_text(encoding="utf-8"))
    encoded = plain["items"].get("encode", [])
    changes = [f"items.encode.{place}.model=projection" for place in range(len(encoded))]
    changes += [
        f"items.encode.{place}.length={feature['length']}"
        for place, one in enumerate(encoded)
        for feature in plain["items"]["features"]
        if feature["column"] == one["column"]
    ]
    if plain["loss"].get("negatives"):
        changes.append("loss.negatives.uniform=16")
    return config_file.load(path, [*SMALL, *changes, *more])


def run(config: Config) -> tuple[dict[str, Version], list[Answered]]:
    outcomes = journey.run(config, lambda _: None, lambda _: None)
    return {one.stage: one.version for one in outcomes}, answers.ask(config)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_ends_in_a_published_release_that_answers(
    path: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_ray(monkeypatch)
    config = small(path, data, tmp_path, monkeypatch)
    made, answered = run(config)
    published = pointer.current(journey.workspace(config).store)
    assert published is not None
    assert published.release == made["index"].name
    towers = made["evaluate"].manifest.facts["towers"]
    assert towers["recall_at_5"] > 0.0 or path.stem == "cold"  # three titles that nobody has met are hard to guess
    if config.answers is not None:
        assert [len(one.answer.items) for one in answered] == [5, 5, 5]
        assert all(one.answer.basis == "history" for one in answered)
    if (look := _SEEN.get(path.stem)) is not None:
        look(config, made, answered)


def _films(config: Config, made: dict[str, Version], answered: list[Answered]) -> None:
    assert all({"title", "because", "nearest", "year"} <= row.keys() for one in answered for row in one.rows())
    assert all(one.similar is not None and len(one.similar.items) == 5 for one in answered)


def _shop(config: Config, made: dict[str, Version], answered: list[Answered]) -> None:
    log = recipe_data._online_retail()["interactions"]
    cancelled = log.filter(log["event_type"] == "cancel").height
    dropped = made["pairs"].manifest.dropped
    assert dropped["unknown_event"] == cancelled
    assert dropped["unknown_item"] > 0
    assert Pairs.of(made["pairs"]).num_items == recipe_data.NUM_ITEMS - recipe_data.SERVICES
    for one in answered:
        prices = [row["median_price"] for row in one.rows()]
        assert max(prices.count(price) for price in prices) <= 2
        assert all("because" in row for row in one.rows())


def _listeners(config: Config, made: dict[str, Version], answered: list[Answered]) -> None:
    assert all(row["because"] for one in answered for row in one.rows())
    assert all(one.similar is not None for one in answered)


def _autoencoder(config: Config, made: dict[str, Version], answered: list[Answered]) -> None:
    assert "started_from" in made["train"].manifest.inputs


def _ratings(config: Config, made: dict[str, Version], answered: list[Answered]) -> None:
    assert 0.0 < made["evaluate"].manifest.facts["towers"]["rmse"] < 4.0


def _multimodal(config: Config, made: dict[str, Version], answered: list[Answered]) -> None:
    version = ray_encode.found(config, journey.workspace(config))
    assert version is not None
    missing = version.manifest.facts["missing"]
    assert missing["title_vector"] == 0
    assert 0 < missing["picture"] < recipe_data.NUM_ITEMS / 2


def _cold(config: Config, made: dict[str, Version], answered: list[Answered]) -> None:
    pairs = Pairs.of(made["pairs"])
    assert sum(count for _, count in pairs.files("test")) > 0
    assert (pairs.train_counts() == 0).sum() > 0


_SEEN: dict[str, Callable[[Config, dict[str, Version], list[Answered]], None]] = {
    "movies": _films,
    "movies-100k": _films,
    "products": _shop,
    "music": _listeners,
    "autoencoder": _autoencoder,
    "ratings": _ratings,
    "multimodal": _multimodal,
    "cold": _cold,
}


def test_users_that_training_has_not_seen_are_measured_by_the_same_recipe(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_ray(monkeypatch)
    cold = next(path for path in RECIPES if path.stem == "cold")
    split = "pairs.split={kind: cold_users, val_share: 0.1, test_share: 0.2}"
    config = small(cold, data, tmp_path, monkeypatch, split)
    journey.pairs(config)
    journey.train(config, lambda _: None)
    assert journey.evaluate(config).version.manifest.counts["users"] > 0


def test_what_is_bought_again_is_measured_apart_from_what_is_bought_first(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_ray(monkeypatch)
    shop = next(path for path in RECIPES if path.stem == "products")
    masks = {}
    for exclude_met in ("true", "false"):
        config = small(shop, data, tmp_path, monkeypatch, f"evaluation.exclude_met={exclude_met}")
        journey.pairs(config)
        journey.train(config, lambda _: None)
        masks[exclude_met] = journey.evaluate(config).version.manifest.facts["protocol"]["masks"]
    assert masks["true"].startswith("items of the user's own context are no candidates")
    assert masks["false"].startswith("none")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_whose_data_is_absent_says_where_it_looks(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_runtime, "connect", lambda _: pytest.fail("Ray was started"))
    monkeypatch.setenv("RAYCL_DATA", str(tmp_path / "nowhere"))
    monkeypatch.setenv("RAYCL_WORKSPACE", str(tmp_path))
    with pytest.raises(InputError, match=r"logs\.0\.uri=.*nowhere"):
        journey.pairs(config_file.load(path))


def test_each_recipe_has_a_workspace_of_its_own() -> None:
    found = [yaml.safe_load(path.read_text(encoding="utf-8"))["workspace"] for path in RECIPES]
    assert len(set(found)) == len(found)
