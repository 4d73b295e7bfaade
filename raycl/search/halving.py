"""Asynchronous successive halving (Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020).

A trial is judged at some numbers of epochs, the rungs, against those that were there before it. What decides is read
from the curves alone, so that a search that goes on after a kill decides as it did.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Curves = Mapping[int, Mapping[int, float]]
"""By trial and number of epochs that were finished: what was measured then, more is better."""


def is_rung(epoch: int, grace: int, reduction: int) -> bool:
    """Whether trials are judged after ``epoch`` epochs: after ``grace``, ``grace * reduction`` and so on."""
    rung = grace
    while rung < epoch:
        rung *= reduction
    return rung == epoch


def reason_to_stop(curves: Curves, trial: int, epoch: int, grace: int, reduction: int) -> str | None:
    """Why the trial should end after ``epoch`` epochs, in words; None where it should go on.

    It ends when its value is below the best ``1 / reduction`` of those that the other trials had at this rung so far;
    the first to come goes on.
    """
    if not is_rung(epoch, grace, reduction):
        return None
    others = [curve[epoch] for number, curve in curves.items() if number != trial and epoch in curve]
    if not others:
        return None
    value, bound = curves[trial][epoch], float(np.percentile(others, 100.0 * (1.0 - 1.0 / reduction)))
    if value >= bound:
        return None
    return (
        f"{value:.4f} after epoch {epoch} is below {bound:.4f}, the bound of the best 1 in {reduction} of"
        f" {len(others)} other trials"
    )
