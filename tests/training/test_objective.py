"""The objective of a step: its terms, its candidates with their probabilities, and what it keeps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from raycl.model import log_q
from raycl.model.inputs import FeatureRows
from raycl.model.losses import bpr, multi_positive, negatives, softmax, triplet
from raycl.model.spec import FeatureSizes
from raycl.training import objective, passes
from raycl.training.exchange import Later
from raycl.training.job import Job
from raycl.training.objective import Decoder, Objective
from raycl.training.passes import Passes
from tests.training.builders import NUM_ITEMS, job

CPU = torch.device("cpu")
DIM, ROWS = 8, 16
OWN = torch.arange(ROWS)


def vectors(rows: int, seed: int) -> Tensor:
    return normalize(torch.randn(rows, DIM, generator=torch.Generator().manual_seed(seed)), dim=-1)


def items_of(rows: Passes) -> Later:
    """Of the pairs of all processes, where there is one."""
    return lambda: rows.batch_items


class Stepping:
    """An objective that is given made-up vectors, step by step."""

    def __init__(self, folder: Path, **loss: Any) -> None:
        self.run: Job = job(folder, loss=loss)
        self.objective: Objective = objective.build(self.run)
        self.batches = self.run.stream.epoch(0)
        self.number = 0

    def step(self) -> tuple[Tensor, Passes, Tensor, Tensor]:
        """The value, and what it was made of."""
        rows = passes.of(self.run, None, next(self.batches), self.number, CPU)
        users, items = (vectors(len(one), self.number * 2 + n) for n, one in enumerate((rows.user_rows, rows.items)))
        value = self.objective(users, items, rows, items_of(rows), self.run.inputs, self.number)
        self.number += 1
        return value, rows, users, items


def expected(
    users: Tensor, items: Tensor, ids: Tensor, likely: Tensor | None, weights: Tensor, temperature: float = 0.1
) -> float:
    return softmax.loss(users, items, OWN, negatives.of(OWN, ids), likely, weights, temperature).item()


def test_terms_are_summed_by_their_weights(tmp_path: Path) -> None:
    terms = [{"kind": "bpr", "weight": 0.5}, {"kind": "triplet", "weight": 3, "margin": 0.4}]
    value, rows, users, items = Stepping(tmp_path, terms=terms, log_q="off").step()
    given = (users, items, OWN, negatives.of(OWN, rows.items), None, rows.weights)
    total = 0.5 * bpr.loss(*given, 0.1) + 3 * triplet.loss(*given, 0.4)
    assert value.item() == pytest.approx(total.item(), rel=1e-6)


def test_static_log_q_is_the_share_of_training_pairs(tmp_path: Path) -> None:
    one = Stepping(tmp_path)
    value, rows, users, items = one.step()
    likely = log_q.static(one.run.inputs.train_targets)[rows.items]
    assert value.item() == pytest.approx(expected(users, items, rows.items, likely, rows.weights), rel=1e-6)


def test_the_strength_of_log_q_multiplies_it(tmp_path: Path) -> None:
    one = Stepping(tmp_path, log_q_strength=1.25)
    value, rows, users, items = one.step()
    likely = 1.25 * log_q.static(one.run.inputs.train_targets)[rows.items]
    assert value.item() == pytest.approx(expected(users, items, rows.items, likely, rows.weights), rel=1e-6)


def test_streaming_log_q_knows_the_batch_that_it_judges(tmp_path: Path) -> None:
    one = Stepping(tmp_path, log_q="streaming")
    sketch = log_q.Sketch(NUM_ITEMS, NUM_ITEMS, 1, 0.01)
    for _ in range(3):
        value, rows, users, items = one.step()
        sketch.update(rows.items)
        likely = sketch.log_q(rows.items)
        assert value.item() == pytest.approx(expected(users, items, rows.items, likely, rows.weights), rel=1e-6)


def test_every_candidate_has_the_probability_of_the_mixture(tmp_path: Path) -> None:
    """Batch and bank are drawn as training pairs are, the others evenly."""
    one = Stepping(tmp_path, negatives={"uniform": 5, "bank": 20, "bank_after_steps": 1})
    static = log_q.static(one.run.inputs.train_targets)
    kept_vectors, kept_ids = torch.zeros(0, DIM), torch.zeros(0, dtype=torch.int64)
    for number in range(4):
        value, rows, users, items = one.step()
        ids = torch.cat([rows.items, kept_ids])
        drawn = ROWS + len(kept_ids)
        likely = ((drawn * static[ids].exp() + 5 / NUM_ITEMS) / (drawn + 5)).log()
        found = expected(users, torch.cat([items, kept_vectors]), ids, likely, rows.weights)
        assert value.item() == pytest.approx(found, rel=1e-5)
        if number >= 1:
            kept_vectors = torch.cat([kept_vectors, items[:ROWS]])[-20:]
            kept_ids = torch.cat([kept_ids, rows.batch_items])[-20:]
    assert len(kept_ids) == 20


def test_what_is_in_the_bank_keeps_the_probability_of_its_time(tmp_path: Path) -> None:
    one = Stepping(tmp_path, log_q="streaming", negatives={"bank": ROWS, "bank_after_steps": 0})
    _, first, _, kept = one.step()
    assert one.objective.sketch is not None
    then = one.objective.sketch.log_q(first.items)
    value, rows, users, items = one.step()
    now = one.objective.sketch.log_q(rows.items)
    ids, likely = torch.cat([rows.items, first.items]), torch.cat([now, then])
    found = expected(users, torch.cat([items, kept]), ids, likely, rows.weights)
    assert value.item() == pytest.approx(found, rel=1e-6)


def test_hard_negatives_are_the_nearest_of_all_candidates(tmp_path: Path) -> None:
    value, rows, users, items = Stepping(tmp_path, log_q="off", negatives={"hard": 3, "uniform": 9}).step()
    scores = (users @ items.T).masked_fill(~negatives.of(OWN, rows.items), -9.0)
    nearest = torch.zeros_like(scores, dtype=torch.bool).scatter(1, scores.topk(3).indices, True)
    found = softmax.loss(users, items, OWN, nearest, None, rows.weights, 0.1)
    assert value.item() == pytest.approx(found.item(), rel=1e-6)


def test_random_negatives_are_other_ones_in_each_row_and_step(tmp_path: Path) -> None:
    one = Stepping(tmp_path, terms="bpr", log_q="off", negatives={"random": 1, "uniform": 30})
    seen = []
    for _ in range(2):
        _, rows, users, items = one.step()
        batch, drawn, private = torch.split(items, rows.item_runs)
        found = one.objective._candidates(
            users, batch, drawn, private, OWN, rows, items_of(rows), one.run.inputs, one.number
        )
        assert found.negative.sum(1).tolist() == [1] * ROWS
        seen.append(found.negative.long().argmax(1).tolist())
    assert len(set(seen[0])) > ROWS / 2
    assert seen[0] != seen[1]


@pytest.mark.parametrize("mode", ["off", "static", "streaming"])
def test_what_a_user_turned_down_is_one_more_negative_of_that_row(tmp_path: Path, mode: str) -> None:
    """It weighs as an item drawn evenly; the own item is none, though the user turned it down before."""
    value, rows, users, items = Stepping(tmp_path, log_q=mode, negatives={"explicit": True}).step()
    assert rows.private is not None
    turned_down, ids = rows.private, rows.items[:ROWS]
    assert (turned_down == ids[:, None]).any()
    assert (turned_down < 0).any()
    q = torch.ones(NUM_ITEMS) if mode == "off" else log_q.static(job(tmp_path).inputs.train_targets).exp()
    if mode == "streaming":
        q = torch.bincount(ids, minlength=NUM_ITEMS) / ROWS
    expected = []
    for row in range(ROWS):
        terms = [(items[n], q[ids[n]]) for n in range(ROWS) if ids[n] != ids[row]]
        even = 1.0 if mode == "off" else 1 / NUM_ITEMS
        own = items[ROWS:].view(ROWS, -1, DIM)[row]
        terms += [
            (vector, torch.tensor(even))
            for vector, item in zip(own, turned_down[row].tolist(), strict=True)
            if item not in (-1, int(ids[row]))
        ]
        score = (users[row] @ items[row] / 0.1).exp() / q[ids[row]]
        total = score + sum((users[row] @ vector / 0.1).exp() / likely for vector, likely in terms)
        expected.append(-(score / total).log() * rows.weights[row])
    assert value.item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-5)


def test_only_this_many_of_the_newest_are_turned_down(tmp_path: Path) -> None:
    every = Stepping(tmp_path, negatives={"explicit": True}).step()[1].private
    newest = Stepping(tmp_path, negatives={"explicit": 2}).step()[1].private
    assert every is not None
    assert newest is not None
    assert (every.shape, newest.tolist()) == ((ROWS, 3), every[:, :2].tolist())


def test_an_item_that_was_liked_and_turned_down_is_neither_with_several_own_items(tmp_path: Path) -> None:
    one = Stepping(tmp_path, terms="multi_positive", log_q="off", negatives={"explicit": True})
    value, rows, users, items = one.step()
    history, ids = rows.batch_history.tolist(), rows.batch_items.tolist()
    assert rows.private is not None
    private, vectors_of = rows.private.tolist(), items[ROWS:].view(ROWS, -1, DIM)
    conflicts, each = 0, []
    for row in range(ROWS):
        liked = [n for n in range(ROWS) if n == row or ids[n] in history[row]]
        against = [items[n] for n in range(ROWS) if ids[n] not in (*history[row], ids[row])]
        for place, item in enumerate(private[row]):
            conflicts += item >= 0 and item in history[row]
            if item not in (-1, *history[row], ids[row]):
                against.append(vectors_of[row, place])
        total = torch.stack([users[row] @ vector / 0.1 for vector in against]).logsumexp(0)
        scores = torch.stack([users[row] @ items[n] / 0.1 for n in liked])
        each.append(torch.nn.functional.softplus(total - scores).mean() * rows.weights[row])
    assert conflicts > 0
    assert value.item() == pytest.approx(torch.stack(each).mean().item(), rel=1e-5)


def test_choosing_hard_negatives_leaves_explicit_ones_in(tmp_path: Path) -> None:
    one = Stepping(tmp_path, negatives={"explicit": True, "hard": 1})
    _, rows, users, items = one.step()
    batch, drawn, private = torch.split(items, rows.item_runs)
    found = one.objective._candidates(users, batch, drawn, private, OWN, rows, items_of(rows), one.run.inputs, 1)
    assert rows.private is not None
    usable = (rows.private >= 0) & (rows.private != rows.batch_items[:, None])
    assert found.negative[:, :ROWS].sum(1).tolist() == [1] * ROWS
    assert torch.equal(found.negative[:, ROWS:], usable)


def test_items_of_the_history_are_own_items_too_wherever_they_came_from(tmp_path: Path) -> None:
    value, rows, users, items = Stepping(tmp_path, terms="multi_positive", log_q="off", negatives={"uniform": 9}).step()
    history, ids = rows.batch_history.tolist(), rows.items.tolist()
    liked = torch.tensor([[n == row or ids[n] in history[row] for n in range(len(ids))] for row in range(ROWS)])
    other = torch.tensor([[ids[n] not in (*history[row], ids[row]) for n in range(len(ids))] for row in range(ROWS)])
    assert liked.sum() > 2 * ROWS
    found = multi_positive.loss(users, items, liked, other, None, rows.weights, 0.1)
    assert value.item() == pytest.approx(found.item(), rel=1e-6)


def test_ratings_take_the_weight_for_the_target_and_not_for_a_weight(tmp_path: Path) -> None:
    value, rows, users, items = Stepping(tmp_path, terms={"kind": "rating", "low": 0, "high": 2}).step()
    assert value.item() == pytest.approx((((users * items).sum(1) - (rows.weights - 1)) ** 2).mean().item(), rel=1e-6)


def test_a_learned_temperature_starts_where_it_is_told_and_stays_in_its_bounds(tmp_path: Path) -> None:
    learned, fixed = (Stepping(tmp_path, temperature=0.3, learn_temperature=learn) for learn in (True, False))
    value = learned.step()[0]
    assert value.item() == pytest.approx(fixed.step()[0].item(), rel=1e-6)
    value.backward()  # type: ignore[no-untyped-call]
    parameter = learned.objective.log_temperature
    assert parameter is not None
    assert parameter.grad is not None
    assert parameter.grad.abs() > 1e-3
    for start, end in ((-99.0, 0.01), (99.0, 10.0), (-1.0, math.exp(-1.0))):
        parameter.data.fill_(start)
        learned.objective.after_step()
        assert torch.as_tensor(learned.objective.temperature).detach().item() == pytest.approx(end)
    assert list(fixed.objective.parameters()) == []


def test_a_decoder_folds_tokens_past_its_size_and_keeps_none_apart() -> None:
    features = FeatureRows((torch.tensor([[0, 1, 4, 5, 9]]),), torch.zeros(1, 2))
    reading = Decoder(FeatureSizes((10,), 2), DIM, max_tokens=5)(vectors(1, 0), features)
    assert reading.tokens[0].tolist() == [[0, 0, 3, 4, 4]]
    assert (reading.read_tokens[0].shape, reading.read_numbers.shape) == ((1, 5), (1, 2))
    whole = Decoder(FeatureSizes((10,), 2), DIM, max_tokens=10)(vectors(1, 0), features)
    assert whole.tokens[0].tolist() == [[0, 0, 3, 4, 8]]


def test_what_is_not_known_is_not_read_back() -> None:
    features = FeatureRows((), torch.tensor([[torch.nan, 2.0]]), (torch.full((1, 3), torch.nan),))
    reading = Decoder(FeatureSizes((), 2, (3,)), DIM, max_tokens=5)(vectors(1, 0), features)
    assert reading.numbers.shape == reading.read_numbers.shape == (1, 5)
    wrong = (reading.numbers != reading.read_numbers).tolist()
    assert wrong == [[False, True, False, False, False]]


def test_without_numbers_a_decoder_reads_none() -> None:
    features = FeatureRows((torch.tensor([[1]]),), torch.zeros(1, 0))
    reading = Decoder(FeatureSizes((3,), 0), DIM, max_tokens=5)(vectors(1, 0), features)
    assert reading.numbers.shape == reading.read_numbers.shape == (1, 0)


def test_an_objective_is_built_alike_whatever_was_drawn_before(tmp_path: Path) -> None:
    run = job(tmp_path, loss={"terms": ["softmax", "reconstruction"]})
    first = objective.build(run).state_dict()
    torch.rand(3)
    second = objective.build(run).state_dict()
    assert first.keys() == second.keys() != {}
    assert all(torch.equal(first[name], second[name]) for name in first)
