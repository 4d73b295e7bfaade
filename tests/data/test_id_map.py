"""Id maps against dictionaries."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raycl.data.id_map import IdMap
from tests.data.builders import ids, many_cases, sorted_ids
from tests.data.reference import Id

INTEGERS = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3)
TEXTS = st.text(st.sampled_from("ab\0é😀"), max_size=3)
SOME_IDS: st.SearchStrategy[list[Any]] = st.lists(INTEGERS, max_size=15) | st.lists(TEXTS, max_size=15)


@many_cases
@given(SOME_IDS, st.data())
def test_rows_are_those_of_a_dictionary(raw: list[Any], data: st.DataObject) -> None:
    other: st.SearchStrategy[Any] = TEXTS if raw and isinstance(raw[0], str) else INTEGERS
    wanted = data.draw(st.lists(st.sampled_from(raw) | other if raw else other, max_size=15))
    kind = ids(raw).type if raw else ids(wanted).type
    known = IdMap(sorted_ids(pa.array(raw, kind)))
    places: dict[Id, int] = {one: row for row, one in enumerate(sorted(set(raw)))}
    assert known.ids.to_pylist() == list(places)
    assert len(known) == len(places)
    assert known.rows(pa.array(wanted, kind)).tolist() == [places.get(one, -1) for one in wanted]


@pytest.mark.parametrize(
    ("known", "wanted"),
    [(ids([1, 5]), pa.array([5, None, 7, 1], pa.int64())), (ids(["a", "b"]), pa.array(["b", None, "", "a"]))],
)
def test_null_is_in_no_map(known: Any, wanted: Any) -> None:
    assert IdMap(known).rows(wanted.cast(known.type)).tolist() == [1, -1, -1, 0]


def test_rows_of_chunks_and_slices_are_rows_of_the_whole() -> None:
    known = IdMap(ids([1, 5, 9]))
    chunks = pa.chunked_array([[9, 1], [], [5]], pa.int64())
    assert known.rows(chunks).tolist() == [2, 0, 1]
    assert known.rows(chunks.slice(1)).tolist() == [0, 1]
    assert known.rows(pa.chunked_array([], pa.int64())).tolist() == []


@many_cases
@given(SOME_IDS, st.randoms(use_true_random=False))
def test_ids_in_any_order_have_the_rows_of_their_places(raw: list[Any], chance: Any) -> None:
    listed = sorted(set(raw))
    chance.shuffle(listed)
    known = IdMap(ids(listed) if listed else pa.array([], pa.int64()))
    assert known.rows(known.ids).tolist() == list(range(len(listed)))
    if listed and isinstance(listed[0], str):
        assert [known.row_of_text(one) for one in listed] == list(range(len(listed)))
        assert known.row_of_text("never there") == -1
