"""The ages of events and the context of requests on their way to the user tower: what is hidden, and where."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from raycl.data.features import PADDING, UNKNOWN
from raycl.data.reader import Batch
from raycl.model import inputs
from raycl.training import exchange, requests
from raycl.training.job import Job
from tests.training.builders import MAX_HISTORY, job

CPU = torch.device("cpu")


def running(folder: Path, share: float) -> tuple[Job, Batch]:
    run = job(folder, model={"pooling": "attention", "request_dropout": share}, with_context=True)
    return run, next(run.stream.epoch(0))


def test_nothing_is_hidden_at_a_share_of_zero(tmp_path: Path) -> None:
    run, batch = running(tmp_path, 0.0)
    ages, context = requests.ages(run, batch, 0, 1, CPU), requests.context(run, batch, 0, 1, CPU)
    assert ages is not None
    assert ages.tolist() == batch.history_age_s.tolist()  # type: ignore[union-attr]
    assert context is not None
    assert context.tokens[0].tolist() == batch.context["device"].to_pylist()
    assert context.numbers[:, 0].tolist() == batch.context["hour"].to_pylist()
    assert {UNKNOWN} < set(context.tokens[0].flatten().tolist())


def test_times_and_context_are_hidden_apart_at_about_the_share(tmp_path: Path) -> None:
    run, batch = running(tmp_path, 0.25)
    timeless, bare = [], []
    for number in range(200):
        ages, context = requests.ages(run, batch, number, 1, CPU), requests.context(run, batch, number, 1, CPU)
        assert ages is not None
        assert context is not None
        gone = ages.isnan()
        assert torch.equal(gone.any(1), gone.all(1))
        timeless.append(gone.all(1))
        unknown = context.numbers[:, 0].isnan()
        assert (context.tokens[0][unknown] == UNKNOWN).all()
        bare.append(unknown)
    hidden = torch.stack([torch.cat(timeless), torch.cat(bare)]).double()
    assert hidden.mean(1).tolist() == pytest.approx([0.25, 0.25], abs=0.03)
    assert abs(float(torch.corrcoef(hidden)[0, 1])) < 0.05


def test_changed_views_know_neither_times_nor_context(tmp_path: Path) -> None:
    run, batch = running(tmp_path, 0.0)
    ages, context = requests.ages(run, batch, 0, 3, CPU), requests.context(run, batch, 0, 3, CPU)
    assert ages is not None
    assert context is not None
    assert ages.shape == (3 * len(batch), MAX_HISTORY)
    assert not ages[: len(batch)].isnan().any()
    assert ages[len(batch) :].isnan().all()
    nothing = inputs.unknown(run.spec.context, 2 * len(batch), CPU)
    views = context.part(slice(len(batch), None))
    assert torch.equal(views.tokens[0], nothing.tokens[0])
    assert views.numbers.isnan().all()
    assert PADDING not in views.tokens[0]


def test_processes_hide_what_one_process_hides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, batch = running(tmp_path, 0.4)
    ages, context = requests.ages(run, batch, 5, 1, CPU), requests.context(run, batch, 5, 1, CPU)
    monkeypatch.setattr(exchange, "world_size", lambda: 2)
    for rank in (0, 1):
        monkeypatch.setattr(exchange, "rank", lambda rank=rank: rank)
        mine, part = slice(8 * rank, 8 * rank + 8), batch.part(rank, 2)
        found, said = requests.ages(run, part, 5, 1, CPU), requests.context(run, part, 5, 1, CPU)
        assert ages is not None
        assert found is not None
        assert context is not None
        assert said is not None
        assert found.numpy() == pytest.approx(ages[mine].numpy(), nan_ok=True)
        assert torch.equal(said.tokens[0], context.tokens[0][mine])


def test_means_read_no_times_and_towers_without_context_none(tmp_path: Path) -> None:
    run = job(tmp_path)
    batch = next(run.stream.epoch(0))
    assert batch.history_age_s is None
    assert requests.ages(run, batch, 0, 1, CPU) is None
    assert requests.context(run, batch, 0, 1, CPU) is None
    bare = replace(run, stream=replace(run.stream, encoders=None))
    assert requests.context(bare, batch, 0, 1, CPU) is None


def test_context_is_encoded_by_the_reader_as_the_encoders_do(tmp_path: Path) -> None:
    """Also where a batch is joined from two windows and cut in parts."""
    run, _ = running(tmp_path, 0.0)
    plain = replace(run.stream, encoders=None)
    encoders = run.stream.encoders
    assert encoders is not None
    for rank in (0, 1):
        for encoded, raw in zip(run.stream.epoch(0, rank, 2), plain.epoch(0, rank, 2), strict=True):
            assert np.array_equal(encoded.item, raw.item)
            for feature in encoders.features:
                assert encoded.context[feature.column].equals(feature.encode(raw.context[feature.column]))
