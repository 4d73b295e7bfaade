"""From the vectors of a history's events, the newest first, to one vector: means, attention, a causal transformer.

Every pooling takes ``present`` (rows, events), which says where there is an event. A row without any may come out as
anything that is finite.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raycl.config import ModelConfig

NUM_AGES = 32
"""Doublings of a second that ages and gaps are told apart by; the last one is 68 years."""

_SMALL = 0.02


class WeightedMean(nn.Module):
    """The weights of a mean over events: all the same, or one learned for each position."""

    def __init__(self, max_history: int, *, recency: bool) -> None:
        super().__init__()
        self.recency = nn.Parameter(torch.zeros(max_history)) if recency else None

    def forward(self, present: Tensor) -> Tensor:
        """Weights (rows, events) that sum to 1, or are all 0 where no event is present."""
        weights = present.float()
        if self.recency is not None:
            weights = weights * self.recency[: present.shape[1]].exp()
        return weights / weights.sum(1, keepdim=True).clamp(min=1e-9)


class Moments(nn.Module):
    """A vector for where an event stands in the history, how old it is, and how long the next newer one came after.

    Times are told apart by the binary logarithm of their seconds; one that is not known has a vector of its own.
    """

    def __init__(self, max_history: int, dim: int) -> None:
        super().__init__()
        self.position = nn.Embedding(max_history, dim)
        self.age = nn.Embedding(NUM_AGES + 1, dim)
        self.gap = nn.Embedding(NUM_AGES + 1, dim)
        for table in (self.position, self.age, self.gap):
            nn.init.normal_(table.weight, std=_SMALL)
        with torch.no_grad():
            self.age.weight[0] = 0.0
            self.gap.weight[0] = 0.0

    def forward(self, num_events: int, age_s: Tensor | None) -> Tensor:
        """(rows or 1, events, dim) of events ``age_s`` (rows, events) seconds old; negative or NaN where not known."""
        device = self.position.weight.device
        if age_s is None:
            age_s = torch.full((1, num_events), torch.nan, device=device)
        age = age_s.float().masked_fill(~(age_s >= 0), torch.nan)
        gap = age - F.pad(age[:, :-1], (1, 0))
        where = self.position(torch.arange(num_events, device=device))
        moments: Tensor = where + self.age(_doublings(age)) + self.gap(_doublings(gap))
        return moments


def _doublings(seconds: Tensor) -> Tensor:
    """1 for under a second, 2 for up to three, and so on up to ``NUM_AGES``; 0 for NaN."""
    found = (1.0 + seconds.clamp(min=0.0)).log2().floor().clamp(max=NUM_AGES - 1) + 1
    return found.nan_to_num(nan=0.0).long()


class Attention(nn.Module):
    """Additive attention without a target: ``softmax(v . tanh(W (event + moment)))`` (Yang et al. 2016, 2.2)."""

    def __init__(self, max_history: int, model: ModelConfig) -> None:
        super().__init__()
        self.moments = Moments(max_history, model.dim)
        self.hidden = nn.Linear(model.dim, model.dim)
        self.score = nn.Linear(model.dim, 1, bias=False)
        nn.init.zeros_(self.score.weight)  # untrained, it is the mean

    def forward(self, events: Tensor, present: Tensor, age_s: Tensor | None) -> Tensor:
        """(rows, events, dim) to (rows, dim): the mean by attention."""
        keys = events + self.moments(present.shape[1], age_s)
        scores = self.score(torch.tanh(self.hidden(keys))).squeeze(-1).float()
        weights = scores.masked_fill(~present, torch.finfo(scores.dtype).min).softmax(1)
        pooled: Tensor = (weights.unsqueeze(1) @ events.float()).squeeze(1)
        return pooled


class Transformer(nn.Module):
    """Events that each see themselves and the older ones (SASRec: Kang and McAuley 2018), with their moments added.

    The vector is the state of the newest event, or the mean of all states, at about unit length.
    """

    def __init__(self, max_history: int, model: ModelConfig) -> None:
        super().__init__()
        self.moments = Moments(max_history, model.dim)
        self.layers = nn.ModuleList(
            Layer(model.dim, model.history_heads, model.dropout) for _ in range(model.history_layers)
        )
        self.norm = nn.LayerNorm(model.dim)
        self.newest_only = model.history_summary == "last"
        nn.init.constant_(self.norm.weight, model.dim**-0.5)

    def forward(self, events: Tensor, present: Tensor, age_s: Tensor | None) -> Tensor:
        """(rows, events, dim) to (rows, dim)."""
        num_events = present.shape[1]
        itself = torch.eye(num_events, dtype=torch.bool, device=present.device)
        older = torch.ones_like(itself).triu()
        seen = (present.unsqueeze(1) & older) | itself
        states = events * events.shape[-1] ** 0.5 + self.moments(num_events, age_s)
        for layer in self.layers[:-1]:
            states = layer(states, states, seen)
        last = self.layers[-1]
        if self.newest_only:  # nobody reads the other states of the last layer
            rows, newest = torch.arange(len(present), device=present.device), present.int().argmax(1)
            one = last(states[rows, newest].unsqueeze(1), states, seen[rows, newest].unsqueeze(1))
            state: Tensor = self.norm(one.squeeze(1))
            return state
        normed = self.norm(last(states, states, seen))
        weights = present.to(normed.dtype)
        mean: Tensor = (weights.unsqueeze(1) @ normed).squeeze(1) / weights.sum(1, keepdim=True).clamp(min=1.0)
        return mean


class Layer(nn.Module):
    """Attention and then two dense layers, each added to what comes in and normalised before (Xiong et al. 2020)."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.before_attention, self.before_dense = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query, self.key_value, self.merge = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        self.dense = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * dim, dim))

    def forward(self, asking: Tensor, states: Tensor, seen: Tensor) -> Tensor:
        """``asking`` (rows, askers, dim) after each has looked at the ``states`` (rows, events, dim) that it may see.

        ``seen`` (rows, askers, events); each sees one at least.
        """
        normed = self.before_attention(states)
        query = self.query(normed if asking is states else self.before_attention(asking))
        key, value = self.key_value(normed).chunk(2, dim=-1)
        looked = F.scaled_dot_product_attention(
            self._by_head(query),
            self._by_head(key),
            self._by_head(value),
            attn_mask=seen.unsqueeze(1),
            dropout_p=self.dropout if self.training else 0.0,
        )
        asking = asking + self.merge(looked.transpose(1, 2).flatten(2))
        after: Tensor = asking + self.dense(self.before_dense(asking))
        return after

    def _by_head(self, states: Tensor) -> Tensor:
        return states.reshape(*states.shape[:2], self.heads, -1).transpose(1, 2)


def pooling(max_history: int, model: ModelConfig) -> WeightedMean | Attention | Transformer:
    """The pooling that ``model.pooling`` names."""
    if model.pooling == "attention":
        return Attention(max_history, model)
    if model.pooling == "transformer":
        return Transformer(max_history, model)
    return WeightedMean(max_history, recency=model.pooling == "recency")
