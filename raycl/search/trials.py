"""The trials of a search as whole configs, each checked before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raycl import config_file
from raycl.config import Config, TimeSplit
from raycl.errors import ConfigError
from raycl.search.draws import draw


@dataclass(frozen=True)
class Trial:
    """One draw of values, and what it trains."""

    number: int
    values: Mapping[str, Any]
    """By searched field, as the checked config has it."""
    folds: tuple[Config, ...]
    """A config for each fold; the first is that of the trial itself, which ``raycl run`` takes."""

    @property
    def named(self) -> str:
        """Its values in words."""
        return ", ".join(f"{name}={value}" for name, value in self.values.items())


def of(config: Config) -> list[Trial]:
    """The trials of ``config.search``, numbered from 0; ConfigError where there is no search or a trial is refused."""
    if config.search is None:
        raise ConfigError(
            "search: required by raycl tune and not set; name what to try, for example search: {fields:"
            " {train.learning_rate: {log_uniform: [0.001, 0.03]}}}"
        )
    plain = config.model_dump(mode="json", exclude={"search"})
    found = []
    for number, values in enumerate(draw(config.search)):
        named = ", ".join(f"{name}={value}" for name, value in values.items())
        try:
            checked = _with(plain, values)
        except ConfigError as error:
            raise ConfigError(f"search.fields: trial {number} ({named}) is refused: {error}") from error
        tree = checked.model_dump(mode="json")
        found.append(Trial(number, {name: _at(tree, name) for name in values}, folds(checked, config.search.folds)))
    return found


def folds(config: Config, number: int) -> tuple[Config, ...]:
    """The config itself, then with its validation window one, two ... windows earlier, and training before that.

    What comes after a window is in the test part of its fold, which nothing here reads: an expanding window.
    """
    if number == 1:
        return (config,)
    split = config.pairs.split
    assert isinstance(split, TimeSplit), "checked with the config"
    plain = config.model_dump(mode="json")
    moved = (round(split.test_share + fold * split.val_share, 12) for fold in range(number))
    return tuple(_with(plain, {"pairs.split.test_share": share}) for share in moved)


def _with(plain: dict[str, Any], values: Mapping[str, Any]) -> Config:
    tree = config_file.apply_overrides(plain, ())
    for name, value in values.items():
        config_file.assign(tree, name, value, f"search.fields.{name}")
    return config_file.check(tree)


def _at(tree: Any, dotted: str) -> Any:
    for key in dotted.split("."):
        tree = tree[int(key)] if isinstance(tree, list) else tree[key]
    return tree
