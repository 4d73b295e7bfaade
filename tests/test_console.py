"""What goes to standard output, what to standard error, and how often."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from raycl.console import Screen, summary
from raycl.journey import Outcome
from raycl.storage.store import Store
from raycl.storage.versions import Version, Workspace

FACTS: dict[str, dict[str, Any]] = {
    "train": {
        "losses": [3.25, 2.5],
        "pairs_per_s": [100.0, 200.0],
        "validation": [
            {"epoch": 0, "step": 5, "k": 7, "recall": 0.0625, "ndcg": 0.5, "users": 9},
            {"epoch": 0, "step": 10, "k": 7, "recall": 0.125, "ndcg": 0.5, "users": 9},
        ],
        "kept": "step 10, in epoch 1",
    },
    "evaluate": {
        "towers": {"recall_at_10": 0.5, "coverage_at_10": 0.25},
        "popularity": {"recall_at_10": 0.0625, "coverage_at_10": 0.03125},
        "intervals": {"towers": {"recall_at_10": [0.375, 0.625]}},
    },
    "index": {"index_recall": 0.984375, "plan": "30 items: exact search", "reason": "all is well"},
    "pairs": {"pairs_by_file": {"train": [7, 8]}, "val_from_ms": 5},
}


def made(folder: Path, stage: str) -> Version:
    draft = Workspace(Store(str(folder))).draft(stage, "0" * 12)
    draft.store.write("some.txt", b"some")
    return draft.commit(
        inputs={}, config={}, counts={"rows_in": 12_345}, dropped={"null_user": 1_234}, facts=FACTS[stage]
    )


def event(epoch: int, step: int, *, done: bool = False, recall: float | None = None) -> dict[str, Any]:
    told = {"epoch": epoch, "step": step, "steps": 2_000, "loss": 1.5, "pairs_per_s": 30_000.0, "done": done}
    return {**told, "validation": None if recall is None else {"k": 7, "recall": recall}}


@pytest.mark.parametrize(
    ("stage", "told"),
    [
        ("pairs", ["rows_in", "12,345", "dropped: null_user", "1,234"]),
        (
            "train",
            ["loss, epoch 1", "3.2500, recall@7 0.1250", "loss, epoch 2", "2.5000 ", "kept: step 10, in epoch 1"],
        ),
        ("evaluate", ["recall_at_10", "0.5000 [0.3750, 0.6250]   most popular 0.0625", "coverage_at_10"]),
        ("index", ["index_recall", "0.9844", "plan: 30 items: exact search", "reason: all is well"]),
    ],
)
def test_a_stage_ends_with_its_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], stage: str, told: list[str]
) -> None:
    version = made(tmp_path, stage)
    Screen(as_json=False).outcome(Outcome(stage, version, True, 1.25))
    out, err = capsys.readouterr()
    assert all(words in out for words in [*told, f"{stage} {version.name}, 1.2 s"])
    assert "nothing to do" not in out
    assert err == ""


@pytest.mark.parametrize("has_report", [True, False])
def test_pairs_say_where_their_report_is(tmp_path: Path, capsys: pytest.CaptureFixture[str], has_report: bool) -> None:
    draft = Workspace(Store(str(tmp_path))).draft("pairs", "0" * 12)
    draft.store.write("report.html" if has_report else "other.html", b"page")
    version = draft.commit(inputs={}, config={}, counts={})
    Screen(as_json=False).outcome(Outcome("pairs", version, True, 1.25))
    assert (f"\nreport: {version.store.uri}/report.html\n" in capsys.readouterr().out) is has_report


def test_a_stage_that_was_finished_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    version = made(tmp_path, "pairs")
    Screen(as_json=False).outcome(Outcome("pairs", version, False, 0.0))
    assert f"pairs: nothing to do, {version.name} is finished ({version.store.uri})" in capsys.readouterr().out


def test_json_is_one_line_with_all_but_the_long_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = Outcome("pairs", made(tmp_path, "pairs"), True, 1.25)
    Screen(as_json=True).outcome(outcome)
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out) == summary(outcome)
    assert out.count("\n") == 1
    assert summary(outcome)["facts"] == {"val_from_ms": 5}


def test_where_there_is_no_terminal_an_epoch_is_a_line_at_its_end_and_every_half_minute(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = 1_000.0
    screen = Screen(as_json=False, clock=lambda: now)
    screen.epoch(event(0, 500))
    now += 31.0
    screen.epoch(event(0, 1_000))
    now += 29.0
    screen.epoch(event(0, 1_500))
    screen.epoch(event(0, 2_000, done=True, recall=0.125))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "epoch 1: step 1,000 of 2,000, loss 1.5000, 30,000 pairs/s",
        "epoch 1: loss 1.5000, recall@7 0.1250, 30,000 pairs/s",
    ]


def test_on_a_terminal_an_epoch_is_a_bar_on_standard_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    screen = Screen(as_json=False)
    screen.epoch(event(0, 1_000))
    screen.epoch(event(0, 2_000, done=True))
    screen.end_epochs()
    out, err = capsys.readouterr()
    assert out == ""
    assert all(word in err for word in ("epoch 1", "loss 1.5000", "30,000 pairs/s"))


def test_lines_for_people_leave_standard_output_to_json(capsys: pytest.CaptureFixture[str]) -> None:
    for as_json in (False, True):
        Screen(as_json=as_json).say("a line of [words]")
    Screen(as_json=False).error("a fault in [brackets]")
    out, err = capsys.readouterr()
    assert out == "a line of [words]\n"
    assert err == "a line of [words]\nraycl: a fault in [brackets]\n"
