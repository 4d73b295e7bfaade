"""Settings of a search that cannot work together, or not with the rest of the config."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raycl import config_validation

if TYPE_CHECKING:
    from raycl.config import Config

_SHAPING = ("seed", "logs", "event_weights", "items", "users", "context", "pairs", "model", "loss", "train")
_MEASURING = ("pairs.split", "train.validation")


def _fields_shape_towers(config: Config) -> str | None:
    if config.search is None:
        return None
    for name in config.search.fields:
        place = f"search.fields.{name}"
        if name.partition(".")[0] not in _SHAPING:
            return f"{place} shapes no towers, so that trials would not differ: search one of {', '.join(_SHAPING)}"
        for measuring in _MEASURING:
            if _holds(name, measuring) or _holds(measuring, name):
                return f"{place} changes what trials are measured on, so that they could not be compared: leave it out"
        for other in config.search.fields:
            if other != name and _holds(name, other):
                return f"{place} holds search.fields.{other}, which is drawn apart: leave one of them out"
    return None


def _trials_are_trained(config: Config) -> str | None:
    if config.search is None or config.ensemble is None:
        return None
    return (
        f"ensemble.towers={list(config.ensemble.towers)} puts finished towers together, and search trains some: leave"
        f" one of them out"
    )


def _trials_train_once(config: Config) -> str | None:
    if config.search is None or config.train.pretrain is None:
        return None
    return "train.pretrain trains twice, and a trial of search trains once: leave one of them out"


def _holds(whole: str, part: str) -> bool:
    return part == whole or part.startswith(f"{whole}.")


def _metric_is_measured(config: Config) -> str | None:
    if config.search is None:
        return None
    validation, split, metric = config.train.validation, config.pairs.split, config.search.metric
    if validation.users == 0:
        return f"search.metric={metric} needs validation, and train.validation.users=0 measures nothing: raise it"
    if none := config_validation.without_part(split):
        return f"search.metric={metric} needs a validation part, and {none}"
    kind, _, k = metric.rpartition("_")
    if int(k) != validation.k:
        return (
            f"search.metric={metric} and train.validation.k={validation.k}: lists of one length are measured, so write"
            f" search.metric={kind}_{validation.k} or train.validation.k={k}"
        )
    return None


def _folds_leave_training(config: Config) -> str | None:
    if config.search is None or config.search.folds == 1:
        return None
    folds, split = config.search.folds, config.pairs.split
    if split.kind != "time":
        return f"search.folds={folds} are windows of time, and pairs.split.kind={split.kind}: use time, or one fold"
    held_out = split.test_share + folds * split.val_share
    if held_out > 1.0 - split.val_share:
        return (
            f"search.folds={folds} with pairs.split.val_share={split.val_share:g} and"
            f" pairs.split.test_share={split.test_share:g} leave {max(1.0 - held_out, 0.0):.0%} of all events to train"
            f" the last fold on, less than its validation has: use fewer folds or smaller shares"
        )
    return None


RULES = (_trials_are_trained, _trials_train_once, _fields_shape_towers, _metric_is_measured, _folds_leave_training)
"""Each returns what is wrong, or None."""
