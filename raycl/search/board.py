"""What the trials of a search have come to so far, kept on storage so that a killed search goes on from there."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from raycl.storage.versions import WORK, Draft

Status = Literal["finished", "stopped", "failed"]
_CURVES = f"{WORK}/curves"


@dataclass
class Board:
    """By trial: the curve of its first fold, and how it ended."""

    draft: Draft
    curves: dict[int, dict[int, float]] = field(default_factory=dict)
    """By number of finished epochs: the metric then."""
    outcomes: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Of trials that ended: ``status``, ``reason`` in words, ``folds`` as ``measured.kept`` tells each, ``seconds``."""

    @classmethod
    def of(cls, draft: Draft, num_trials: int) -> Self:
        """What an earlier run of the same search left in ``draft``; what failed then is tried again."""
        found = cls(draft)
        for number in range(num_trials):
            outcome = draft.task_done(_task(number))
            if outcome is not None and outcome["status"] != "failed":
                found.outcomes[number] = outcome
        for name in draft.store.names(_CURVES):
            plain = json.loads(draft.store.read(f"{_CURVES}/{name}"))
            found.curves[int(name.partition(".")[0])] = {int(epoch): value for epoch, value in plain.items()}
        return found

    def note(self, number: int, epoch: int, value: float) -> None:
        """The trial has finished ``epoch`` epochs, and ``value`` is its metric."""
        curve = self.curves.setdefault(number, {})
        curve[epoch] = value
        self.draft.store.write(f"{_CURVES}/{number:06d}.json", json.dumps(curve).encode())

    def end(self, number: int, status: Status, **told: Any) -> None:
        """The trial is over, and is not tried again by this search."""
        outcome = {"status": status, "reason": "", "folds": [], "seconds": 0.0, **told}
        self.draft.finish_task(_task(number), outcome)
        self.outcomes[number] = outcome

    def value(self, number: int) -> float | None:
        """The mean over folds of a finished trial, the newest value of another one; None without any."""
        measured = [fold["value"] for fold in self.outcomes.get(number, {}).get("folds", ())]
        if measured:
            return float(sum(measured) / len(measured))
        curve = self.curves.get(number)
        return curve[max(curve)] if curve else None


def _task(number: int) -> str:
    return f"trial-{number:06d}"
