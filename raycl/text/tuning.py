"""Contrastive training of an encoder's last layers on pairs of texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from raycl.config_encode import EncoderTuning
from raycl.model.losses import softmax
from raycl.text.halves import Halves, States

_STATES_BYTES = 1 << 30
_AT_ONCE = 32
_CLIP = 1.0
_WARMUP_SHARE = 0.1
_TOLD = 10

Places = npt.NDArray[np.int64]


def fit(
    halves: Halves,
    texts: Sequence[str],
    pairs: Places,
    how: EncoderTuning,
    seed: int,
    states_bytes: int = _STATES_BYTES,
) -> list[float]:
    """Train the layers of ``halves`` in place; returns the mean loss of each tenth of the steps.

    ``pairs`` (pairs, 2) are places in ``texts``, which are distinct, so that items of the same words are one. The first
    epoch has them in their order, and ``seed`` draws that of the others. On one kind of processor, and of one number of
    threads, the same comes out every time.
    """
    by_length = np.argsort([len(text) for text in texts], kind="stable")  # little is padded where lengths are near
    states = States(halves, [texts[place] for place in by_length], states_bytes)
    pairs = np.argsort(by_length)[pairs]
    generator = np.random.default_rng(seed)
    steps_an_epoch = -(-len(pairs) // how.batch_size)
    num_steps = steps_an_epoch * how.epochs
    optimizer = torch.optim.AdamW(halves.layers.parameters(), lr=how.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: share_of_rate(step, num_steps))
    losses: list[float] = []
    for epoch in range(how.epochs):
        order = generator.permutation(len(pairs)) if epoch else np.arange(len(pairs))
        for start in range(0, len(pairs), how.batch_size):
            loss = _loss(halves, states, pairs[order[start : start + how.batch_size]], how.temperature)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(halves.layers.parameters(), _CLIP)
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
    return [float(np.mean(part)) for part in np.array_split(losses, min(_TOLD, len(losses)))]


def share_of_rate(step: int, num_steps: int) -> float:
    """Of the peak of the learning rate: up in the first tenth of the steps, then down, and 0 after the last."""
    warmup = max(int(num_steps * _WARMUP_SHARE), 1)
    return min((step + 1) / warmup, max(num_steps - step, 0) / max(num_steps - warmup + 1, 1))


def _loss(halves: Halves, states: States, pairs: Places, temperature: float) -> Tensor:
    """Both directions of the softmax over all texts of a batch."""
    places, column = np.unique(pairs, return_inverse=True)
    parts = np.array_split(places, -(-len(places) // _AT_ONCE))
    found = torch.cat([halves.vectors(*states.of(part.tolist())) for part in parts])
    own = torch.from_numpy(column.reshape(pairs.shape)).to(found.device)
    rows, partners = own.T.reshape(-1), own.flip(1).T.reshape(-1)
    negative = negatives(own, len(places))[rows]
    return softmax.loss(found[rows], found, partners, negative, None, found.new_ones(len(rows)), temperature)


def negatives(pairs: Tensor, num_texts: int) -> Tensor:
    """(texts, texts): which texts of a batch are negatives of each: not itself, nor any that it makes a pair with."""
    kept = ~torch.eye(num_texts, dtype=torch.bool, device=pairs.device)
    kept[pairs[:, 0], pairs[:, 1]] = False
    kept[pairs[:, 1], pairs[:, 0]] = False
    return kept
