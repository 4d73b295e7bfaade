"""A transformer in two halves: together they are the whole, whether states are kept or made again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sentence_transformers", reason="needs the extra 'text'")
import torch

from raycl.errors import InputError
from raycl.text import encoders
from raycl.text.halves import Halves, States
from tests import tiny_transformer

WORDS = ["red", "lip", "gloss", "hammer", "drill"]
TEXTS = ["red lip gloss", "hammer", "", "drill hammer red red lip gloss lip red drill"]
MAX_TOKENS = 8


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_transformer.save(tmp_path_factory.mktemp("model"), WORDS, layers=3)


def halves(model: Path, layers: int = 1) -> Halves:
    bottom, top = (encoders.opened(model, MAX_TOKENS, "cpu") for _ in range(2))
    return Halves(bottom, top, layers, "f")


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_both_halves_together_are_the_whole(model: Path, layers: int) -> None:
    cut = halves(model, layers)
    whole = encoders.opened(model, MAX_TOKENS, "cpu").encode(TEXTS, normalize_embeddings=True)
    with torch.no_grad():
        np.testing.assert_allclose(cut.vectors(*cut.states(TEXTS)), whole, atol=1e-5)


@pytest.mark.parametrize("kind", ["roberta", "mpnet", "distilbert"])
def test_models_after_bert_are_cut_as_it_is(kind: str, tmp_path: Path) -> None:
    model = tiny_transformer.save(tmp_path, WORDS, layers=3, kind=kind)
    whole = encoders.opened(model, MAX_TOKENS, "cpu").encode(TEXTS, normalize_embeddings=True)
    cut = halves(model, 2)
    with torch.no_grad():
        np.testing.assert_allclose(cut.vectors(*cut.states(TEXTS)), whole, atol=1e-5)


def test_states_that_are_kept_are_those_that_are_made_again(model: Path) -> None:
    cut = halves(model)
    num_bytes = cut.num_tokens(TEXTS) * cut.dim * 4
    assert num_bytes == (5 + 3 + 2 + MAX_TOKENS) * tiny_transformer.LENGTH * 4
    kept, made = States(cut, TEXTS, num_bytes), States(cut, TEXTS, num_bytes - 1)
    assert (kept.in_memory, made.in_memory) == (True, False)
    with torch.no_grad():
        for places in ([0, 1, 2, 3], [3, 0], [1]):
            torch.testing.assert_close(cut.vectors(*kept.of(places)), cut.vectors(*made.of(places)))


def test_the_weights_are_those_of_the_last_layers_by_their_place_in_the_model(model: Path) -> None:
    there = encoders.layers_of(encoders.opened(model, MAX_TOKENS, "cpu"), "f")
    found = halves(model, 2).weights()
    assert {name.partition(".")[0] for name in found} == {"1", "2"}
    expected = {f"{place}.{name}": value for place in (1, 2) for name, value in there[place].state_dict().items()}
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_a_model_that_cannot_be_cut_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"f\.fine_tune: models as ElectraModel cannot be cut: leave fine_tune out"):
        halves(tiny_transformer.save(tmp_path, WORDS, kind="electra"))
    bottom, top = (encoders.opened(model, MAX_TOKENS, "cpu") for _ in range(2))
    with torch.no_grad():
        for weight in top[0].auto_model.encoder.layer[-1].parameters():
            weight.add_(1.0)
    with pytest.raises(InputError, match=r"f\.fine_tune: models as BertModel cannot be cut: leave fine_tune out"):
        Halves(bottom, top, 1, "f")


def test_a_model_whose_layers_are_elsewhere_is_refused(model: Path) -> None:
    opened = encoders.opened(model, MAX_TOKENS, "cpu")
    opened[0].auto_model.encoder.blocks = opened[0].auto_model.encoder.layer
    del opened[0].auto_model.encoder.layer
    with pytest.raises(InputError, match=r"f\.fine_tune: a BertModel has no encoder\.layer or transformer\.layer"):
        encoders.layers_of(opened, "f")
