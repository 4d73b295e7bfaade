"""A tuned encoder on storage: the layers that learned, by the name of their version, and the model they are of."""

from __future__ import annotations

from collections.abc import Mapping

import safetensors.torch as st
from safetensors import SafetensorError
from torch import Tensor

from raycl.config_encode import Encoding
from raycl.errors import CorruptRelease, InputError
from raycl.storage.store import Store
from raycl.storage.versions import Version, fingerprint
from raycl.text import encoders
from raycl.text.encoders import Encode

STAGE = "encoders"
FILE = "layers.safetensors"


def digest(chosen: Encoding, base: str, pairs: Version, seed: int) -> str:
    """Fingerprint of the encoder that tuning on ``pairs`` makes of a model, whose own is ``base``."""
    return fingerprint(STAGE, chosen.model_dump(mode="json"), base, pairs.manifest.fingerprint, seed)


def save(store: Store, layers: Mapping[str, Tensor]) -> None:
    """Write the layers that learned; those that did not are in the model."""
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in layers.items()}
    store.write(FILE, st.save(kept))


def encoder(version: Version | None, chosen: Encoding, field: str, device: str = "cpu") -> Encode:
    """The tuned encoder of a finished version; without one the model as it is.

    CorruptRelease where the version's file is not what was written, or does not fit the model; InputError where the
    model is another now than the one that was tuned.
    """
    if version is None:
        return encoders.load(chosen, field, device)
    base, now = version.manifest.facts["base"], encoders.fingerprint(chosen, field)
    if base != now:
        raise InputError(
            f"{field}.model={chosen.model} has fingerprint {now[:12]}, and encoder {version.name} was tuned from"
            f" {base[:12]}: install the model that it was tuned from, or run 'raycl pairs' to tune the present one"
        )
    content = version.verified(FILE).store.read(FILE)
    try:
        return encoders.load(chosen, field, device, st.load(content))
    except (LookupError, RuntimeError, ValueError, SafetensorError) as error:
        raise CorruptRelease(f"{version.store.uri}/{FILE} does not fit {chosen.model}: {error}") from error
