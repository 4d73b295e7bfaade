"""The rules of a release's catalogue, asked about items that were handed in to the one before."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raycl.config_encode import Encoding
from raycl.errors import InputError
from raycl.index.catalogue_rules import CatalogueRules
from raycl.index.item_words import Made
from raycl.text import encoders
from raycl.text.encoders import projected


def rules(
    where: dict[str, Any] | None = None, left_out: Any = None, **encode: tuple[str, ...] | dict[str, Any]
) -> CatalogueRules:
    """Rules with an encoding for each of ``encode``: the columns that it reads, or its settings."""
    given = {column: of if isinstance(of, dict) else {"of": of} for column, of in encode.items()}
    chosen = [
        Encoding.model_validate({"column": name, "model": "projection", "length": 8, **one})
        for name, one in given.items()
    ]
    made = {one.column: one for one in chosen}
    none = pa.nulls(0) if left_out is None else left_out
    return CatalogueRules(
        where or {}, made, Made(), none, frozenset({"said"}), lambda one: encoders.load(one, "items.encode")
    )


ITEMS = pa.table({"id": [1, 2, 3], "name": ["red shoe", "hat", "sock"], "kind": ["shop", None, "test"]})


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ({}, [False, False, False]),
        ({"kind": "shop"}, [False, True, True]),
        ({"kind": None}, [True, False, True]),
        ({"kind": "shop", "id": 3}, [True, True, True]),
        ({"colour": "red"}, [True, True, True]),
        ({"colour": None}, [False, False, False]),
        ({"id": "none"}, [True, True, True]),
    ],
)
def test_rows_without_the_values_of_the_rule_are_no_items(where: dict[str, Any], found: list[bool]) -> None:
    assert rules(where).unlike(ITEMS).tolist() == found


def test_items_that_the_table_has_as_other_rows_are_left_out() -> None:
    assert rules(left_out=pa.array([7, 9])).leaves_out([9, 8]) == [True, False]
    assert rules(left_out=pa.array([7, 9])).leaves_out(["nine"]) == [False]
    assert rules().leaves_out([9]) == [False]


def test_vectors_are_of_another_space_where_anything_but_the_share_without_differs() -> None:
    ours = rules(said=("name",), unread=("name",))
    assert ours.other_columns(rules(said={"of": ("name",), "missing": 0.5})) == []
    assert ours.other_columns(rules(said={"of": ("name",), "model": "another"})) == ["said"]
    assert ours.other_columns(rules()) == rules().other_columns(ours) == ["said"]


def test_vectors_are_of_another_space_where_the_files_of_the_model_were_replaced() -> None:
    plain = rules(said=("name",))
    ours, theirs = (replace(plain, made=Made(models={"said": files})) for files in ("a", "b"))
    assert ours.other_columns(theirs) == ["said"]
    assert ours.other_columns(ours) == ours.other_columns(plain) == plain.other_columns(ours) == []


def test_vectors_are_made_anew_from_their_words() -> None:
    stale = ITEMS.append_column("said", pa.array([[9.0]] * 3))
    found = rules(said=("name",)).encoded(stale, ["said"])
    np.testing.assert_array_equal(found["said"].to_pylist(), projected(["red shoe", "hat", "sock"], 8))
    assert rules(said=("name",)).encoded(stale, []) == stale


def test_vectors_that_cannot_be_made_anew_are_refused() -> None:
    with pytest.raises(InputError, match=r"than items.encode.model=projection, and the words .* not there: title"):
        rules(said=("name", "title")).encoded(ITEMS, ["said"])
    with pytest.raises(InputError, match=r"the vectors in said are another encoder's, and no items\.encode makes them"):
        rules().encoded(ITEMS, ["said"])
