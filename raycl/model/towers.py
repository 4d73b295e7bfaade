"""The user tower and the item tower: inputs to unit vectors of one length."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raycl.config import ModelConfig
from raycl.model.features import FeatureBlock
from raycl.model.history import WeightedMean, pooling
from raycl.model.inputs import FeatureRows, unknown
from raycl.model.row_table import RowTable, distinct, sums
from raycl.model.spec import FeatureSizes, TowerSpec

_ROWS = 8_192


class Head(nn.Module):
    """Residual layers, then unit length."""

    def __init__(self, spec: TowerSpec) -> None:
        super().__init__()
        dim = spec.model.dim
        layers: list[nn.Module] = []
        for hidden in spec.model.hidden:
            layers.append(
                nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(spec.model.dropout), nn.Linear(hidden, dim))
            )
        self.layers = nn.ModuleList(layers)

    def forward(self, inputs: Tensor) -> Tensor:
        """(rows, dim) to unit vectors (rows, dim)."""
        for layer in self.layers:
            inputs = inputs + layer(inputs)
        return F.normalize(inputs.float(), dim=-1)


def _block(sizes: FeatureSizes, model: ModelConfig) -> FeatureBlock:
    return FeatureBlock(sizes, model.dim, model.feature_dropout, gated=model.fusion == "gates")


def _rows(tower: ItemTower | UserTower, items: Tensor, seen: Tensor) -> Tensor:
    """The row of each of ``items`` in a tower's table, 0 where it is not ``seen``.

    Rows that no two items share are their own, and looking that up in a long table costs as much as reading vectors.
    """
    return torch.where(seen, (tower.id_row[items] if tower.shares_rows else items) + 1, 0)


class ItemTower(nn.Module):
    """An item's own embedding, where training has seen it, and its features.

    ``known`` (num_items,) says which items training has seen as targets. ``id_row`` (num_items,) is the row of each
    item's own embedding; rare items may share one.
    """

    known: Tensor
    id_row: Tensor

    def __init__(self, spec: TowerSpec) -> None:
        super().__init__()
        self.ids = RowTable(spec.num_id_rows + 1, spec.model.dim) if spec.model.item_id else None
        self.features = _block(spec.items, spec.model)
        self.head = Head(spec)
        self.shares_rows = spec.shared_id_rows is not None
        self.register_buffer("known", torch.zeros(spec.num_items, dtype=torch.bool))
        self.register_buffer("id_row", torch.arange(spec.num_items) % spec.num_id_rows)

    def forward(self, items: Tensor, features: FeatureRows, hidden: Tensor | None = None) -> Tensor:
        """Unit vectors (rows, dim) of the vocabulary rows ``items``, with their ``features``.

        An item that training has not seen, or that ``hidden`` (rows,) marks, takes the shared embedding of the unknown.
        """
        seen = self.known[items]
        vectors: Tensor = self.head(self.represent(items, seen if hidden is None else seen & ~hidden, features))
        return vectors

    def represent(self, items: Tensor, seen: Tensor, features: FeatureRows) -> Tensor:
        """What the tower reads of the vocabulary rows ``items`` (rows,): own embedding and features, as (rows, dim).

        Where it is not ``seen`` (rows,), an item's own embedding is that of the unknown.
        """
        described: Tensor | None = self.features(features)
        if self.ids is None:
            assert described is not None
            return described
        own: Tensor = self.ids(_rows(self, items, seen))
        return own if described is None else own + described


class UserTower(nn.Module):
    """What a user did, newest first, and what is known of the user.

    ``known`` (num_items,) says which items training has seen in histories, and ``id_row`` (num_items,) which row of the
    table of events each has.
    """

    known: Tensor
    id_row: Tensor
    history: RowTable | None
    dim: int

    def __init__(self, spec: TowerSpec, *, own_events: bool = True) -> None:
        """``own_events``: with a table of its own of what an event says; without one it needs ``of_events``."""
        super().__init__()
        self.max_history, dim = spec.max_history, spec.model.dim
        self.dim = dim
        self.pool = pooling(spec.max_history, spec.model)
        num_rows = spec.num_items if spec.model.share_items else spec.num_id_rows
        # Row 0 stands for no event: it is zero, and since nothing looks at it, its gradient is zero.
        self.history = RowTable(num_rows + 1, dim, num_zeros=1) if own_events else None
        self.empty = nn.Parameter(torch.zeros(dim))
        self.features = _block(spec.users, spec.model)
        self.context_sizes = spec.context
        self.context = _block(spec.context, spec.model)
        self.head = Head(spec)
        self.shares_rows = spec.shared_id_rows is not None and not spec.model.share_items
        self.register_buffer("known", torch.zeros(spec.num_items, dtype=torch.bool))
        self.register_buffer("id_row", torch.arange(spec.num_items) % num_rows)
        nn.init.normal_(self.empty, std=dim**-0.5)

    def forward(
        self, history: Tensor, features: FeatureRows, age_s: Tensor | None = None, context: FeatureRows | None = None
    ) -> Tensor:
        """Unit vectors (rows, dim) of users with these histories: vocabulary rows (rows, max_history), -1 for none.

        Items that training has not seen are passed over; a history without any other takes a vector of its own.
        ``age_s`` (rows, max_history) is how many seconds ago each event was, negative or NaN where that is not known;
        means do not look at it. ``context`` is what is known of the requests, None where that is nothing.
        """
        assert self.history is not None
        items = history.clamp(min=0)
        present = (history >= 0) & self.known[items]
        tokens = _rows(self, items, present)
        if isinstance(self.pool, WeightedMean):
            pooled = self.history.sums(tokens, self.pool(present))
        else:
            pooled = self.pool(self.history(tokens), present, age_s)
        return self._vectors(pooled, present, features, context)

    def of_events(
        self,
        table: Tensor,
        places: Tensor,
        present: Tensor,
        features: FeatureRows,
        age_s: Tensor | None = None,
        context: FeatureRows | None = None,
    ) -> Tensor:
        """``forward`` on events whose vectors are the rows ``places`` (rows, max_history) of ``table``."""
        table = table.float()
        if isinstance(self.pool, WeightedMean):
            pooled = sums(table, places, self.pool(present))
        else:
            pooled = self.pool(F.embedding(places, table), present, age_s)
        return self._vectors(pooled, present, features, context)

    def _vectors(self, pooled: Tensor, present: Tensor, features: FeatureRows, context: FeatureRows | None) -> Tensor:
        inputs = torch.where(present.any(1, keepdim=True), pooled, self.empty)
        if context is None:
            context = unknown(self.context_sizes, len(pooled), pooled.device)
        for described in (self.features(features), self.context(context)):
            inputs = inputs if described is None else inputs + described
        vectors: Tensor = self.head(inputs)
        return vectors


class TwoTower(nn.Module):
    """Both towers as one module, so that one backward pass reaches both.

    With ``model.share_items`` the events of a history are what the item tower reads of their items, so ``forward``
    needs the features of the whole catalogue, and ``user`` answers alone only as ``user_alone`` returns it.
    """

    def __init__(self, spec: TowerSpec) -> None:
        super().__init__()
        self.spec = spec
        self.user = UserTower(spec, own_events=not spec.model.share_items)
        self.item = ItemTower(spec)

    def forward(
        self,
        history: Tensor,
        users: FeatureRows,
        items: Tensor,
        features: FeatureRows,
        hidden: Tensor | None = None,
        age_s: Tensor | None = None,
        context: FeatureRows | None = None,
        catalogue: FeatureRows | None = None,
    ) -> tuple[Tensor, Tensor]:
        """User vectors (rows, dim) and the vectors (rows, dim) of their items.

        ``age_s`` and ``context`` are those of ``UserTower.forward``.
        """
        vectors = self.item(items, features, hidden)
        if not self.spec.model.share_items:
            return self.user(history, users, age_s, context), vectors
        assert catalogue is not None
        rows, places = distinct(history.clamp(min=0), self.spec.num_items)  # each item once, however often met
        table = self._represent(rows, catalogue)
        return self.user.of_events(table, places, history >= 0, users, age_s, context), vectors

    def user_alone(self, catalogue: FeatureRows) -> UserTower:
        """The user tower as it is saved and served, without the item tower; its weights are this module's own.

        With ``model.share_items`` its table of events holds what the item tower reads of each item of the ``catalogue``
        now, so that an answer looks rows up and reads no features.
        """
        if not self.spec.model.share_items:
            return self.user
        with torch.device("meta"):
            alone = UserTower(self.spec)
        state = self.user.state_dict() | {"history.weight": self._event_table(catalogue)}
        state["known"] = torch.ones_like(state["known"])
        alone.load_state_dict(state, assign=True)
        return alone.train(self.user.training)

    def _represent(self, items: Tensor, catalogue: FeatureRows) -> Tensor:
        return self.item.represent(items, self.user.known[items], catalogue.take(items))

    def _event_table(self, catalogue: FeatureRows) -> Tensor:
        """What each item says as an event (num_items + 1, dim); the first row is padding."""
        training, known = self.item.training, self.user.known
        table = torch.zeros(len(known) + 1, self.spec.model.dim, device=known.device)
        self.item.eval()
        with torch.no_grad():
            for first in range(0, len(known), _ROWS):
                items = torch.arange(first, min(first + _ROWS, len(known)), device=known.device)
                table[items + 1] = self._represent(items, catalogue).float()
        self.item.train(training)
        return table
