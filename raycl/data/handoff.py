"""A finished pairs version, as the later stages read it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raycl import schema
from raycl.config import PairRules
from raycl.data.columns import whole
from raycl.data.features import Encoders
from raycl.data.hashing import bucket_of
from raycl.data.id_map import IdMap
from raycl.data.packed import has_targets
from raycl.storage import tables
from raycl.storage.store import Store
from raycl.storage.versions import Version


@dataclass(frozen=True)
class Pairs:
    """The files of one pairs version."""

    store: Store
    rules: PairRules
    facts: dict[str, Any] = field(compare=False)

    @classmethod
    def of(cls, version: Version) -> Pairs:
        """Open a finished version under the rules that it was made with."""
        return cls(version.store, PairRules.model_validate(version.manifest.config["pairs"]), version.manifest.facts)

    @property
    def num_buckets(self) -> int:
        """Files of sequences; a user's events are in that of ``hashing.bucket_of``."""
        return len(self.facts["pairs_by_file"]["train"])

    @property
    def context(self) -> tuple[str, ...]:
        """Columns of the log that go along with events, of which ``reader.PairStream`` may be asked for some."""
        return tuple(self.facts.get("context", ()))

    def files(self, part: str) -> tuple[tuple[str, int], ...]:
        """Path of each file of sequences, and how many pairs of ``train``, ``val`` or ``test`` are in it."""
        pairs = self.facts["pairs_by_file"][part]
        return tuple((schema.sequences_file(number), int(count)) for number, count in enumerate(pairs))

    def some_users(self, part: str, count: int) -> list[Any]:
        """Ids of the first ``count`` users with targets in a part."""
        found: list[Any] = []
        for path, _ in self.files(part):
            table = tables.read(self.store, path, ["user", "items", *schema.BOUNDS])
            chosen = table["user"].filter(pa.array(has_targets(table, part)))
            found += chosen.slice(0, count - len(found)).to_pylist()
            if len(found) >= count:
                break
        return found

    def vocabulary(self) -> pa.Table:
        """``schema.vocabulary``, one item a row."""
        parts = pa.concat_tables(
            self._read(schema.items_file(part)) for part in range(self.facts["vocabulary"]["parts"])
        )
        return parts if self.facts["vocabulary"]["parts"] == 1 else parts.sort_by("row")

    @property
    def num_items(self) -> int:
        """Rows of the vocabulary."""
        return int(self.facts["vocabulary"]["rows"])

    def embedding_rows(self) -> npt.NDArray[np.int64] | None:
        """Of each item, the row of its own embedding, (num_items,), where rare items share some; else None.

        With ``rare_items: hash`` the first ``rare_buckets`` rows are shared, and the others follow in order.
        """
        if self.rules.rare_items == "drop":
            return None
        table = self.vocabulary()
        own = table["log_count"].to_numpy() >= self.rules.min_item_events
        shared = bucket_of(table["item"], self.rules.rare_buckets)
        return np.where(own, self.rules.rare_buckets + np.cumsum(own) - 1, shared)

    def retired(self) -> npt.NDArray[np.bool_]:
        """Of each item, whether it may be retrieved no more, (num_items,)."""
        return np.asarray(self.vocabulary()["retired"].to_numpy())

    def train_counts(self) -> npt.NDArray[np.int64]:
        """Events of each item in training, (num_items,): popularity, and what users' histories hold."""
        return np.asarray(self.vocabulary()["train_count"].to_numpy())

    def train_targets(self) -> npt.NDArray[np.int64]:
        """Training pairs whose target is the item, (num_items,): how often an epoch draws it."""
        return np.asarray(self.vocabulary()["train_targets"].to_numpy())

    def user_features_of(self, user: Any) -> dict[str, Any] | None:
        """What the user table says of a user, as plain values by column, to ask the service with.

        Unknown values are left out. None for a user who is not in the table, or where there is none.
        """
        if not self.store.exists(schema.USERS_FILE):
            return None
        table = self._read(schema.USERS_FILE)
        try:
            wanted = pa.array([user]).cast(table.schema.field("user").type)
        except pa.ArrowException:
            return None
        (row,) = IdMap(whole(table["user"])).rows(wanted)
        if row < 0:
            return None
        features = table["features"][int(row)].as_py() if "features" in table.column_names else {}
        return {column: value for column, value in features.items() if value is not None}

    def encoders(self, side: str) -> Encoders:
        """The fitted features of ``items`` or ``users``."""
        return Encoders.from_json(json.loads(self.store.read(schema.FEATURES_FILE))[side])

    def encoded(self, side: str) -> pa.Table | None:
        """The encoded features of ``items`` or ``users``, or None where the config names no such table."""
        path = schema.ITEM_FEATURES_FILE if side == "items" else schema.USER_FEATURES_FILE
        return self._read(path) if self.store.exists(path) else None

    def catalogue(self) -> pa.Table:
        """What an answer shows of each item: ``item``, ``title`` where there is one, and the displayed columns.

        Of an item that the catalogue has no more it is the id alone.
        """
        if self.store.exists(schema.CATALOGUE_FILE):
            return self._read(schema.CATALOGUE_FILE)
        return self.vocabulary().select(["item"])

    def _read(self, path: str) -> pa.Table:
        return tables.read(self.store, path)
