"""What goes on beside the steps of a run: when to validate, which towers to keep, and whether to stop."""

from __future__ import annotations

import logging
import re
from typing import Any

import safetensors.torch as st
from safetensors import SafetensorError

from raycl.config import TrainConfig
from raycl.config_validation import needed_by
from raycl.data import held_out
from raycl.errors import InputError, RayclError
from raycl.storage.store import Store
from raycl.storage.versions import WORK
from raycl.training import checkpoint, curve, exchange
from raycl.training.checkpoint import Progress
from raycl.training.curve import Curve, Point
from raycl.training.step import Learner
from raycl.training.validation import Validation

log = logging.getLogger(__name__)

_FOLDER = f"{WORK}/best"
_NAME = re.compile(r"step-(\d{9})\.safetensors")


def require_held_out(train: TrainConfig, num_pairs: int) -> bool:
    """Whether there is anything to validate on; InputError where the config needs it and there is nothing."""
    if num_pairs == 0 and (needed := needed_by(train)) is not None:
        raise InputError(
            f"{needed} needs a validation part, and that of these pairs has no user with an item to"
            f" find: look at pairs.split and pairs.min_user_events, or leave the setting out"
        )
    return num_pairs > 0


def kept(train: TrainConfig, points: Curve) -> Point | None:
    """The validation whose towers training ends with; None for the last towers."""
    return None if train.keep == "last" else curve.best(points)


def told(train: TrainConfig, progress: Progress) -> dict[str, Any]:
    """What a finished run says of its validations: ``validation``, one mapping each, and in words what was ``kept``."""
    k, point = train.validation.k, kept(train, progress.curve)
    if point is not None:
        words = f"step {point.step:,}, in epoch {point.epoch + 1}, the best recall@{k} of {len(progress.curve)}"
    else:
        words = f"step {progress.step:,}, the last one" + ("" if progress.curve else "; nothing was validated")
    if reason := curve.reason_to_stop(progress.curve, train.early_stop):
        words += f"; training ended early: {reason}"
    return {
        "validation": [curve.plain(one, k) for one in progress.curve],
        "kept_step": progress.step if point is None else point.step,
        "kept": words,
    }


class Watch:
    """One run's validations. What they decide is read from ``Progress.curve`` alone, which every checkpoint holds."""

    def __init__(self, learner: Learner) -> None:
        """Read the held-out users; InputError where the config needs some and there are none."""
        job = learner.job
        self._learner, self._train, self._store = learner, job.train, job.store
        self._validation: Validation | None = None
        settings, stream = job.train.validation, job.stream
        if settings.users == 0:
            return
        users = held_out.read(
            stream.store, job.held_out, stream.rules, "val", settings.users, stream.limits, stream.context
        )
        if require_held_out(job.train, len(users)):
            self._validation = Validation(users, job.spec.num_items, job.inputs.active, settings.k, stream.encoders)
        elif exchange.rank() == 0:
            log.info("validation is off: the validation part of the pairs has no user with an item to find")

    @property
    def validates(self) -> bool:
        """Whether anything is measured."""
        return self._validation is not None

    def is_due(self, progress: Progress) -> bool:
        """Whether this step within an epoch is one to validate at."""
        every, taken = self._train.validation.steps, progress.epoch_step
        return self._validation is not None and every is not None and taken > 0 and taken % every == 0

    def look(self, progress: Progress) -> None:
        """Validate the towers as they are, once for a step; the best so far are kept on storage."""
        points = progress.curve
        if self._validation is None or (points and points[-1].step == progress.step):
            return
        measured = self._validation.measure(self._learner.towers, self._learner.inputs)
        points.append(Point(progress.epoch, progress.step, *measured, self._validation.num_users))
        if kept(self._train, points) == points[-1]:
            taken = checkpoint.snapshot(self._learner.towers, (), progress)
            if taken is not None:
                self._store.write(_path(progress.step), st.save(taken.weights))
                _drop_old(self._store, points)

    def reason_to_stop(self, progress: Progress) -> str | None:
        """Why the run should end early, in words."""
        return curve.reason_to_stop(progress.curve, self._train.early_stop)

    def restore(self, progress: Progress) -> None:
        """Bring the towers back that the run ends with; RayclError where they cannot be read."""
        point = kept(self._train, progress.curve)
        if point is None or point.step == progress.step:
            return
        path = _path(point.step)
        try:
            checkpoint.restore(self._learner.towers, (), st.load(self._store.read(path)), {})
        except (OSError, RuntimeError, SafetensorError) as error:
            raise RayclError(
                f"{self._store.uri}/{path}, the towers of the best validation, cannot be read: train with --force"
                f" ({error})"
            ) from error


def _path(step: int) -> str:
    return f"{_FOLDER}/step-{step:09d}.safetensors"


def _drop_old(store: Store, points: Curve) -> None:
    """Delete towers that were the best before those which the oldest checkpoint knows of: no run goes on from there."""
    steps = checkpoint.steps(store)
    known = curve.best([point for point in points if steps and point.step <= steps[0]])
    for name in store.names(_FOLDER):
        found = _NAME.fullmatch(name)
        if known is not None and found and int(found[1]) < known.step:
            store.delete(f"{_FOLDER}/{name}")
