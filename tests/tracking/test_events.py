"""Which events count, and by which names their numbers go."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from raycl.storage.store import Store
from raycl.tracking import events, lines


def at(step: int, loss: float | None, kind: str = "step", **more: Any) -> dict[str, Any]:
    return {"kind": kind, "step": step, "time": 5.0, "loss": loss, **more}


def start(step: int) -> dict[str, Any]:
    return {"kind": "start", "step": step, "time": 5.0}


def test_of_a_step_told_twice_the_last_counts() -> None:
    assert events.counted([at(2, 1.0), at(1, 2.0), at(2, 3.0)]) == [at(1, 2.0), at(2, 3.0)]


def test_a_run_that_goes_on_takes_back_the_steps_after_its_checkpoint() -> None:
    told = [start(0), at(1, 1.0), at(2, 2.0), at(3, 3.0), at(2, 0.5, "validation"), start(1), at(2, 4.0)]
    assert events.counted(told) == [at(1, 1.0), at(2, 4.0)]


def test_numbers_go_by_the_part_that_they_are_of() -> None:
    told = at(3, 1.5, epoch=1, gradient_norm=None, temperature=0.1)
    assert events.scalars(told) == {"train/loss": 1.5, "train/temperature": 0.1}
    found = {"kind": "validation", "step": 3, "time": 1.0, "epoch": 0, "k": 20, "recall": 0.25, "ndcg": 0.5, "users": 9}
    assert events.scalars(found) == {"validation/recall_at_20": 0.25, "validation/ndcg_at_20": 0.5}
    assert events.scalars(start(3)) == {}


def test_lines_on_storage_are_read_as_they_were_put(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    first = lines.Lines(store)
    for event in (start(0), at(1, 1.0), at(2, 2.0)):
        first.put(event)
    first.flush()
    first.put(at(3, 3.0))  # lost with its process
    second = lines.Lines(store)
    for event in (start(1), at(2, 5.0)):
        second.put(event)
    second.close(finished=True)
    assert lines.read(store, lines.PATH) == [at(1, 1.0), at(2, 5.0)]


def test_a_file_that_is_no_lines_is_told_and_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(str(tmp_path))
    assert lines.read(store, lines.PATH) == []
    assert caplog.text == ""
    for content in (b'{"kind": "st', b"[1]\n", b'{"kind": "step"}\n'):
        store.write(lines.PATH, content)
        with caplog.at_level(logging.WARNING):
            assert lines.read(store, lines.PATH) == []
        assert "holds no curves of a run" in caplog.text
        caplog.clear()
