"""A transformer in two: the layers that stay as they are, whose states are made once a text, and those that learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from raycl.errors import InputError
from raycl.text.encoders import Transformer, layers_of

_AT_ONCE = 64
_SAME = 1e-3
"""How far the halves may be from the whole, of vectors of length 1: rounding, and no other layer."""


class Halves:
    """The frozen ``bottom`` of a model, and its ``top`` of the last layers, to be trained."""

    def __init__(self, bottom: Transformer, top: Transformer, num_layers: int, field: str) -> None:
        """Two copies of one model, which are cut here; ``num_layers`` are the top's.

        InputError, with the ``field`` of the config, for a model of a kind that cannot be cut.
        """
        words = ["a cut is right", "where both halves together are the whole"]
        with torch.no_grad():
            whole = bottom.encode(words, convert_to_tensor=True, normalize_embeddings=True, show_progress_bar=False)
        below, above = layers_of(bottom, field), layers_of(top, field)
        self._first = len(below) - num_layers
        self.layers = nn.ModuleList(list(above)[self._first :])
        """The layers that learn."""
        del below[self._first :]
        del above[: self._first]
        self._bottom, self._top = bottom.eval(), top.eval()  # without dropout: what is below is made once
        self._top[0].auto_model.embeddings = _Given()
        kind = type(bottom[0].auto_model).__name__
        refused = f"{field}.fine_tune: models as {kind} cannot be cut: leave fine_tune out, or name another model"
        try:
            with torch.no_grad():
                found = self.vectors(*self.states(words))
        except (RuntimeError, TypeError, AttributeError) as error:  # something stands between embeddings and layers
            raise InputError(refused) from error
        if not torch.allclose(found, whole, atol=_SAME):
            raise InputError(refused)

    @property
    def dim(self) -> int:
        """Numbers in a state."""
        return int(self._bottom[0].auto_model.config.hidden_size)

    def weights(self) -> dict[str, Tensor]:
        """Of the trained layers, by ``place.name`` of the layer among all and the weight in it."""
        return {
            f"{self._first + place}.{name}": value
            for place, layer in enumerate(self.layers)
            for name, value in layer.state_dict().items()
        }

    def num_tokens(self, texts: Sequence[str]) -> int:
        """Parts of words of all texts."""
        starts = range(0, len(texts), _AT_ONCE)
        return sum(int(self._tokens(texts[start : start + _AT_ONCE])["attention_mask"].sum()) for start in starts)

    @torch.no_grad()
    def states(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """What the bottom makes of texts, (texts, tokens, dim), and which of it are parts of them, (texts, tokens)."""
        tokens = self._tokens(texts)
        given = {name: tokens[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in tokens}
        return self._bottom[0].auto_model(**given).last_hidden_state, tokens["attention_mask"]

    def vectors(self, states: Tensor, mask: Tensor) -> Tensor:
        """Vectors of unit length, (texts, length), of what ``states`` made."""
        top = self._top[0].auto_model(inputs_embeds=states, attention_mask=mask).last_hidden_state
        found: dict[str, Any] = {"token_embeddings": top, "attention_mask": mask}
        for module in list(self._top)[1:]:
            found = module(found)
        return nn.functional.normalize(found["sentence_embedding"], dim=1)

    def _tokens(self, texts: Sequence[str]) -> dict[str, Tensor]:
        found = self._bottom.preprocess(list(texts))
        return {name: value.to(self._bottom.device) for name, value in found.items() if isinstance(value, Tensor)}


class States:
    """States of many texts: in memory where all take ``most_bytes`` or less, else made whenever they are asked for."""

    def __init__(self, halves: Halves, texts: Sequence[str], most_bytes: int) -> None:
        self._halves, self._texts = halves, texts
        self._kept: list[Tensor] | None = None
        if halves.num_tokens(texts) * halves.dim * 4 > most_bytes:
            return
        self._kept = []
        for start in range(0, len(texts), _AT_ONCE):
            states, mask = halves.states(texts[start : start + _AT_ONCE])
            self._kept += [state[there].clone() for state, there in zip(states.cpu(), mask.cpu().bool(), strict=True)]

    @property
    def in_memory(self) -> bool:
        """Whether they are all there."""
        return self._kept is not None

    def of(self, places: Sequence[int]) -> tuple[Tensor, Tensor]:
        """As ``Halves.states``, of the texts at these places."""
        if self._kept is None:
            return self._halves.states([self._texts[place] for place in places])
        chosen = [self._kept[place] for place in places]
        device = next(self._halves.layers.parameters()).device
        mask = [torch.ones(len(state), dtype=torch.int64) for state in chosen]
        padded = (nn.utils.rnn.pad_sequence(values, batch_first=True) for values in (chosen, mask))
        states, there = (values.to(device) for values in padded)
        return states, there


class _Given(nn.Module):
    """In place of embeddings: the states, as they are."""

    def forward(self, input_ids: None = None, inputs_embeds: Tensor | None = None, *_: Any, **__: Any) -> Tensor | None:
        return inputs_embeds
