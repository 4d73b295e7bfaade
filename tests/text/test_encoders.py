"""Texts to vectors: what a projection promises, and a transformer of random weights beside its own arithmetic."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from raycl.config_encode import Encoding
from raycl.errors import ConfigError, InputError
from raycl.text import encoders
from tests import tiny_transformer

WORDS = ["red", "lip", "gloss", "hammer", "drill"]


def encoding(model: str, **settings: object) -> Encoding:
    return Encoding.model_validate({"column": "v", "of": "title", "model": model, **settings})


def test_a_projection_is_of_unit_length_always_alike_and_does_not_look_at_its_neighbours() -> None:
    encode = encoders.load(encoding("projection", length=32), "items.encode.0")
    together = encode(["Red lip gloss", "a hammer", "drill"])
    assert together.shape == (3, 32)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, rtol=1e-6)
    np.testing.assert_array_equal(together[1], encode(["a hammer"])[0])
    np.testing.assert_array_equal(together[0], encode(["gloss, LIP; red!"])[0])  # words, in any order and case


def test_texts_that_share_words_are_as_near_as_what_they_share() -> None:
    first, other, far = encoders.projected(["red lip gloss shine", "red lip balm care", "steel hammer"], 20_000)
    assert first @ other == pytest.approx(0.5, abs=0.03)
    assert first @ far == pytest.approx(0.0, abs=0.03)


def test_a_text_without_a_word_is_zero() -> None:
    assert not encoders.projected(["", "!?"], 8).any()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_transformer.save(tmp_path_factory.mktemp("model"), WORDS)


def test_a_transformer_is_the_mean_of_its_last_states_and_reads_no_more_than_asked_for(model: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    encode = encoders.load(encoding(str(model), max_tokens=5), "items.encode.0")
    found = encode(["red lip gloss", "hammer", "red lip gloss hammer drill"])
    np.testing.assert_allclose(found[2], found[0], atol=1e-6)  # 5 tokens are [CLS], 3 words and [SEP]
    tokens = AutoTokenizer.from_pretrained(model)("red lip gloss", return_tensors="pt")
    with torch.no_grad():
        states = AutoModel.from_pretrained(model).eval()(**tokens).last_hidden_state[0].mean(0)
    np.testing.assert_allclose(found[0], torch.nn.functional.normalize(states, dim=0), atol=1e-6)
    np.testing.assert_allclose(encode(["hammer"])[0], found[1], atol=1e-6)


def test_another_model_has_another_fingerprint(model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    first = encoders.fingerprint(encoding(str(model)), "f")
    assert encoders.fingerprint(encoding(str(copy)), "f") == first
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    assert encoders.fingerprint(encoding(str(copy)), "f") != first


@pytest.mark.parametrize("name", ["pytorch_model.bin", "2_Dense/weights.pt", "modeling_own.py"])
def test_a_model_whose_files_may_run_code_is_refused(model: Path, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    (copy / name).parent.mkdir(exist_ok=True)
    (copy / name).write_bytes(b"")
    with pytest.raises(InputError, match=rf"items\.encode\.0\.model=.* holds {name}, which may run code"):
        encoders.folder(str(copy), "items.encode.0")


def test_a_module_that_is_not_of_the_library_is_refused(model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    modules = json.loads((copy / "modules.json").read_text())
    modules[0]["type"] = "os.system"
    (copy / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(InputError, match=r"asks for the module os\.system"):
        encoders.folder(str(copy), "items.encode.0")


def test_a_model_that_is_not_there_names_the_extra() -> None:
    with pytest.raises(ConfigError, match=r"items\.encode\.0\.model=no_such_model is no folder and no installed pack"):
        encoders.folder("no_such_model", "items.encode.0")
