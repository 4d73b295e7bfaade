"""Training of the last layers: what learns and what stays, that it learns, and that it does so alike."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sentence_transformers", reason="needs the extra 'text'")
import torch

from raycl.config_encode import EncoderTuning
from raycl.text import encoders, tuning
from raycl.text.halves import Halves, States
from tests import tiny_transformer

WORDS = [f"word{number}" for number in range(24)]
TEXTS = [f"{one} {other}" for one, other in itertools.pairwise(WORDS)]
PAIRS = np.array([[place, place + 12] for place in range(11)] * 6, dtype=np.int64)
HOW = EncoderTuning(epochs=4, batch_size=8, learning_rate=3e-3, temperature=0.2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_transformer.save(tmp_path_factory.mktemp("model"), WORDS, layers=3)


def halves(model: Path, layers: int = 1) -> Halves:
    bottom, top = (encoders.opened(model, 8, "cpu") for _ in range(2))
    return Halves(bottom, top, layers, "f")


def test_the_loss_falls_and_pairs_come_near_each_other(model: Path) -> None:
    cut = halves(model)

    def nearness() -> tuple[float, float]:
        with torch.no_grad():
            vectors = cut.vectors(*cut.states(TEXTS))
        scores = vectors[:11] @ vectors[12:].T
        return float(scores.diagonal().mean() - scores.mean()), float(scores.mean())

    before = nearness()
    losses = tuning.fit(cut, TEXTS, PAIRS, HOW, seed=0)
    assert len(losses) == 10
    assert losses[-1] < losses[0]
    assert nearness()[0] > before[0]


@pytest.mark.parametrize("layers", [1, 2])
def test_the_last_layers_change_and_all_else_stays_bit_for_bit(model: Path, layers: int) -> None:
    bottom, top = (encoders.opened(model, 8, "cpu") for _ in range(2))
    everything = {name: value.clone() for name, value in bottom[0].auto_model.state_dict().items()}
    cut = Halves(bottom, top, layers, "f")
    tuning.fit(cut, TEXTS, PAIRS, HOW, seed=0)
    below = bottom[0].auto_model.state_dict()
    assert len([name for name in below if name.startswith("encoder.layer.")]) == 16 * (3 - layers)
    assert all(torch.equal(value, everything[name]) for name, value in below.items())
    learned = cut.weights()
    assert len(learned) == 16 * layers
    key_biases = {name for name in learned if name.endswith("attention.self.key.bias")}  # softmax does not see them
    for name, value in learned.items():
        assert name in key_biases or not torch.equal(value, everything[f"encoder.layer.{name}"]), name


def test_the_same_seed_learns_the_same_and_another_one_something_else(model: Path) -> None:
    def learned(seed: int, states_bytes: int = 1 << 20) -> dict[str, torch.Tensor]:
        cut = halves(model)
        tuning.fit(cut, TEXTS, PAIRS, HOW, seed, states_bytes)
        return cut.weights()

    first, again, other, without_memory = learned(1), learned(1), learned(2), learned(1, 0)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
    for name in first:
        torch.testing.assert_close(first[name], without_memory[name], atol=1e-3, rtol=1e-2)


def test_a_text_is_no_negative_of_itself_nor_of_those_that_it_makes_a_pair_with() -> None:
    pairs = np.array([[0, 1], [2, 3], [0, 4], [3, 5]])
    found = tuning.negatives(torch.from_numpy(pairs), 6)
    together = {frozenset(pair) for pair in pairs.tolist()}
    for one in range(6):
        for other in range(6):
            assert bool(found[one, other]) == (one != other and frozenset((one, other)) not in together)


def test_the_loss_of_a_batch_is_the_mean_over_both_directions(model: Path) -> None:
    cut = halves(model)
    pairs = np.array([[0, 1], [2, 3], [0, 4]])
    states = States(cut, TEXTS, 1 << 20)
    with torch.no_grad():
        found = float(tuning._loss(cut, states, pairs, 0.5))
        vectors = cut.vectors(*cut.states(TEXTS[:5])).double().numpy()
    scores = vectors @ vectors.T / 0.5
    partners = {0: {1, 4}, 1: {0}, 2: {3}, 3: {2}, 4: {0}}
    total = 0.0
    for one, other in [*pairs.tolist(), *pairs[:, ::-1].tolist()]:
        others = [place for place in range(5) if place != one and place not in partners[one]]
        total += np.log(np.exp(scores[one, [other, *others]]).sum()) - scores[one, other]
    assert found == pytest.approx(total / 6, rel=1e-4)


def test_the_rate_rises_in_the_first_tenth_and_falls_to_nothing() -> None:
    shares = [tuning.share_of_rate(step, 100) for step in range(101)]
    assert max(shares) == 1.0
    assert shares.index(1.0) == 9
    assert np.all(np.diff(shares[:10]) > 0)
    assert np.all(np.diff(shares[10:]) < 0)
    assert shares[100] == 0.0
    assert tuning.share_of_rate(0, 1) == 1.0
