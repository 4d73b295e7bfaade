"""What the pairs of a release say of its catalogue: which rows are items, and what made the vectors of their words."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raycl import schema
from raycl.config_encode import Encoding
from raycl.data import catalogue_tasks
from raycl.data.columns import whole
from raycl.data.id_map import IdMap
from raycl.errors import InputError, RayclError, StoreUnavailable
from raycl.index import item_words, release
from raycl.index.item_words import Made
from raycl.storage import tables
from raycl.storage.versions import Version, Workspace
from raycl.text import tasks
from raycl.text.encoders import Encode


@dataclass(frozen=True)
class CatalogueRules:
    """The rules that one release was made with; none where its pairs are gone."""

    where: Mapping[str, Any]
    """``items.where``."""
    encode: Mapping[str, Encoding]
    """``items.encode`` by the column that it makes."""
    made: Made
    """What made these columns, where it is known."""
    left_out: Any
    """Ids of the rows of its table that are no items by ``where``."""
    vectors: frozenset[str]
    """Columns that its item tower reads vectors from."""
    encoder: Callable[[Encoding], Encode]
    """What makes such a column of the words."""

    @classmethod
    def of(cls, workspace: Workspace, built: Version) -> CatalogueRules:
        """The rules of a release; StoreUnavailable where the store does not answer."""
        vectors = frozenset(one.column for one in release.item_encoders(built.store).features if one.kind == "vector")
        try:
            pairs = workspace.open("pairs", release.lineage_of(built.store).pairs)
        except StoreUnavailable:
            raise
        except RayclError:
            return cls({}, {}, Made(), pa.nulls(0), vectors, _unknown)
        items = pairs.manifest.config.get("items") or {}
        encode = [Encoding.model_validate(one) for one in items.get("encode") or ()]
        known = pairs.store.exists(schema.UNWANTED_FILE)
        left_out = whole(tables.read(pairs.store, schema.UNWANTED_FILE)["item"]) if known else pa.nulls(0)
        made = item_words.known(workspace, built)

        @functools.lru_cache(maxsize=1)
        def encoder(chosen: Encoding) -> Encode:
            return item_words.encoder(workspace, made, chosen, "items.encode")

        by_column = {one.column: one for one in encode}
        return cls(items.get("where") or {}, by_column, made, left_out, vectors, encoder)

    def leaves_out(self, items: list[object]) -> list[bool]:
        """Of each item, whether its table has it as a row that is none."""
        if not len(self.left_out):
            return [False] * len(items)
        try:
            asked = pa.array(items).cast(self.left_out.type)
        except pa.ArrowException:
            return [False] * len(items)
        found: list[bool] = (IdMap(self.left_out).rows(asked) >= 0).tolist()
        return found

    def unlike(self, items: pa.Table) -> npt.NDArray[np.bool_]:
        """Of each row (rows,), whether ``where`` makes it no item.

        A column that is not there is null, and one of another type than the value has it nowhere.
        """
        for name in self.where.keys() - set(items.column_names):
            items = items.append_column(name, pa.nulls(items.num_rows))
        place = "place of a row"
        found = np.ones(items.num_rows, dtype=np.bool_)
        try:
            kept = catalogue_tasks.wanted(items.append_column(place, pa.array(np.arange(items.num_rows))), self.where)
        except InputError:
            return found
        found[whole(kept[place]).to_numpy()] = False
        return found

    def other_columns(self, before: CatalogueRules) -> list[str]:
        """Columns that the item tower reads, whose vectors were made otherwise for the release ``before``."""
        ours, theirs = (
            {column: one.model_copy(update={"missing": 0.0}) for column, one in rules.encode.items()}
            for rules in (self, before)
        )
        changed = {column for column in ours.keys() | theirs.keys() if ours.get(column) != theirs.get(column)}
        now, then = self.made.models, before.made.models
        changed |= {name for name in now.keys() & then.keys() if now[name] != then[name]}
        return sorted(changed & self.vectors)

    def encoded(self, items: pa.Table, columns: list[str]) -> pa.Table:
        """``items`` with the vectors of these columns made anew from their words.

        InputError where the words are not there, or the column is made of none; what ``tuned.encoder`` raises.
        """
        for column in columns:
            chosen = self.encode.get(column)
            if chosen is None:
                raise InputError(f"the vectors in {column} are another encoder's, and no items.encode makes them now")
            missing = [name for name in chosen.of if name not in items.column_names]
            if missing:
                raise InputError(
                    f"the vectors in {column} are another encoder's than items.encode.model={chosen.model}, and the"
                    f" words to make them of are not there: {', '.join(missing)}"
                )
            if column in items.column_names:
                items = items.drop_columns([column])
            items = tasks.with_vectors(items, [chosen], [self.encoder(chosen)])
        return items


def _unknown(chosen: Encoding) -> Encode:
    raise InputError(f"how the vectors in {chosen.column} are made is not known: the pairs are gone")
