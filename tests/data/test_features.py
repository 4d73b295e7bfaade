"""Fitted features: tokens and numbers against values worked out by hand, from tables and from plain dictionaries."""

from __future__ import annotations

import itertools
import json
import zlib
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raycl.config import Feature
from raycl.data.features import Encoder, Encoders
from raycl.errors import InputError
from tests.data.builders import few_cases, many_cases


def fit(values: Any, kind: str, **settings: Any) -> Encoder:
    return Encoder.fit(Feature.model_validate({"column": "c", "kind": kind} | settings), pa.array(values))


def bags(encoder: Encoder, values: Any, kind: pa.DataType | None = None) -> list[list[int]]:
    """The tokens of each row."""
    offsets, tokens = encoder.tokens(pa.array(values, kind))
    return [tokens[start:stop].tolist() for start, stop in itertools.pairwise(offsets)]


def word(text: str, num_buckets: int) -> int:
    return zlib.crc32(text.encode()) % num_buckets + 1


def test_categorical_values_are_numbered_by_how_frequent_they_are_then_by_name() -> None:
    encoder = fit(["b", "a", "c", "a", None, "", "c", "d"], "categorical")
    assert encoder.values == ("a", "c", "b", "d")
    assert encoder.num_tokens == 5
    assert bags(encoder, ["a", "d", None, "", "new", "b"]) == [[1], [4], [], [], [0], [3]]


def test_only_the_most_frequent_values_are_kept() -> None:
    encoder = fit(["b", "a", "c", "a", "c", "c"], "categorical", max_values=2)
    assert encoder.values == ("c", "a")
    assert bags(encoder, ["b", "a"]) == [[0], [2]]


def test_the_values_are_indexed_once_and_that_changes_no_encoder() -> None:
    """A server encodes one row at a time; the index is neither compared, nor hashed, nor written."""
    used, fresh = fit(["b", "a", "a"], "categorical"), fit(["b", "a", "a"], "categorical")
    before = used._token_of
    assert bags(used, ["b"]) == bags(used, ["b"]) == [[2]]
    assert used._token_of is before
    assert used == fresh
    assert hash(used) == hash(fresh)
    assert Encoders((used,)).to_json() == Encoders((fresh,)).to_json()


def test_categorical_numbers_are_their_text() -> None:
    encoder = fit([30, 4, 4], "categorical")
    assert encoder.values == ("4", "30")
    assert bags(encoder, [30, None]) == [[2], []]


@pytest.mark.parametrize(
    "values", [["x|y", "y", "", None, "y||z"], [["x", "y"], ["y"], [], None, ["y", "", None, "z"]]]
)
def test_a_multi_feature_is_a_list_or_a_string_cut_at_its_separator(values: Any) -> None:
    encoder = fit(values, "multi")
    assert encoder.values == ("y", "x", "z")
    assert bags(encoder, values) == [[2, 1], [1], [], [], [1, 3]]


def test_the_separator_is_no_pattern() -> None:
    encoder = fit(["a.b", "a"], "multi", separator=".")
    assert encoder.values == ("a", "b")


def test_a_slice_of_lists_keeps_its_rows_apart() -> None:
    lists = pa.array([["x"], ["y", "x"], None, ["z"]]).slice(1)
    encoder = Encoder.fit(Feature(column="c", kind="multi"), lists)
    offsets, tokens = encoder.tokens(lists)
    assert (offsets.tolist(), tokens.tolist()) == ([0, 2, 2, 3], [2, 1, 3])


def test_text_is_hashed_words_in_lower_case() -> None:
    encoder = fit(["unused"], "text", num_buckets=50)
    assert encoder.num_tokens == 51
    expected = [[word(one, 50) for one in words] for words in (["größe", "42"], ["a", "b"], [], [])]
    assert bags(encoder, ["GRÖSSE: 42!".replace("SS", "ß"), "a--B", None, " ... "]) == expected


def test_numbers_are_standardised_by_what_was_finite_and_unknown_is_zero() -> None:
    values = [2.0, 4.0, None, float("nan"), float("inf")]
    encoder = fit(values, "numeric")
    assert (encoder.mean, encoder.deviation, encoder.num_tokens) == (3.0, 1.0, 0)
    assert encoder.numbers(pa.array([*values, 7.0])).tolist() == [-1.0, 1.0, 0.0, 0.0, 0.0, 4.0]


@pytest.mark.parametrize("values", [[5, 5, 5], [None, None], []])
def test_a_column_without_spread_is_not_divided_by_zero(values: list[int | None]) -> None:
    column = pa.array(values, pa.int64())
    encoder = Encoder.fit(Feature(column="c", kind="numeric"), column)
    assert encoder.deviation == 1.0
    assert encoder.numbers(column).tolist() == [0.0] * len(values)


def test_a_column_that_does_not_fit_its_kind_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="column 'c' is no numeric feature"):
        Encoders.fit([Feature(column="c", kind="numeric")], pa.table({"c": ["dear"]}))


TABLE = pa.table(
    {
        "colour": ["red", "blue", None, "red", ""],
        "tags": ["a|b", None, "b", "", "c|a|b"],
        "lists": [["p", "q"], [], None, ["q"], ["q", "r"]],
        "price": [1.0, None, 3.0, 5.5, float("nan")],
        "title": ["A red hat", "hat", None, "", "Hat, hat"],
        "flag": [True, False, None, True, True],
        "year": pa.array([1999, 2001, 1999, None, 2001], pa.int16()),
        "share": pa.array([0.5, 2.0, None, 1e20, 2.0]),
    }
)
FEATURES = (
    Feature(column="colour"),
    Feature(column="tags", kind="multi"),
    Feature(column="lists", kind="multi"),
    Feature(column="price", kind="numeric"),
    Feature(column="title", kind="text", num_buckets=20),
    Feature(column="flag"),
    Feature(column="year"),
    Feature(column="share"),
)
FITTED = Encoders.fit(FEATURES, TABLE)


def test_a_table_is_encoded_column_by_column() -> None:
    encoded = FITTED.encode(TABLE)
    assert encoded.column_names == [feature.column for feature in FEATURES]
    assert encoded["colour"].to_pylist() == [[1], [2], [], [1], []]
    assert encoded["price"].type == pa.float32()
    assert encoded["flag"].to_pylist() == [[1], [2], [], [1], [1]]
    for feature in FITTED.bags:
        assert encoded[feature.column].to_pylist() == bags(feature, TABLE[feature.column].combine_chunks())


def test_bags_and_numerics_are_told_apart_in_order() -> None:
    assert [feature.column for feature in FITTED.numerics] == ["price"]
    assert [feature.column for feature in FITTED.bags] == [f.column for f in FEATURES if f.kind != "numeric"]


def test_rows_given_as_dictionaries_are_encoded_as_the_table_is() -> None:
    assert FITTED.encode_rows(TABLE.to_pylist()) == FITTED.encode(TABLE)


def test_each_row_is_encoded_alike_alone_and_among_others() -> None:
    encoded = FITTED.encode(TABLE).to_pylist()
    assert [FITTED.encode_rows([row]).to_pylist()[0] for row in TABLE.to_pylist()] == encoded


def test_a_string_is_cut_at_its_separator_beside_a_list_too() -> None:
    encoded = FITTED.encode_rows([{"tags": "a|b"}, {"tags": ["a", "b"]}, {"tags": None}, {}])
    assert encoded["tags"].to_pylist() == [bags(FITTED.features[1], ["a|b"])[0]] * 2 + [[], []]


def test_an_absent_feature_is_unknown() -> None:
    assert FITTED.encode_rows([{"colour": "red", "other": 1}]).to_pylist() == [
        {"colour": [1], "tags": [], "lists": [], "price": 0.0, "title": [], "flag": [], "year": [], "share": []}
    ]


@pytest.mark.parametrize(("column", "value"), [("price", "dear"), ("price", [1.0]), ("colour", ["red"]), ("year", {})])
def test_a_value_of_a_wrong_type_is_refused_by_name(column: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"user.{column}: .* is not a"):
        FITTED.encode_rows([{column: value}])


def test_without_features_rows_keep_their_number() -> None:
    assert Encoders().encode(TABLE).num_rows == 5
    assert Encoders().encode_rows([{}, {"colour": "red"}]).num_rows == 2


def test_no_rows_are_encoded_to_no_rows() -> None:
    empty = FITTED.encode(TABLE.slice(0, 0))
    assert empty.schema == FITTED.encode(TABLE).schema
    assert empty.num_rows == FITTED.encode_rows([]).num_rows == 0


def test_encoders_come_back_from_json() -> None:
    assert Encoders.from_json(json.loads(json.dumps(FITTED.to_json()))) == FITTED


TEXTS = st.lists(st.none() | st.text(st.sampled_from("ab| .é"), max_size=5), min_size=1, max_size=12)


@many_cases
@given(TEXTS, st.sampled_from(["categorical", "multi", "text"]), st.integers(1, 4))
def test_tokens_are_those_of_a_loop_over_rows(values: list[str | None], kind: str, most: int) -> None:
    column = pa.array(values, pa.string())
    encoder = Encoder.fit(Feature.model_validate({"column": "c", "kind": kind, "max_values": most}), column)
    expected = []
    for value in values:
        parts = [value or ""] if kind == "categorical" else (value or "").split("|")
        if kind == "text":
            parts = "".join(mark if mark.isalnum() else " " for mark in (value or "").lower()).split()
            expected.append([word(part, 4096) for part in parts])
        else:
            places = {known: place + 1 for place, known in enumerate(encoder.values)}
            expected.append([places.get(part, 0) for part in parts if part])
    assert bags(encoder, column) == expected
    assert all(0 <= token < encoder.num_tokens for bag in expected for token in bag)


@few_cases
@given(st.lists(st.none() | st.floats(-1e6, 1e6), min_size=2, max_size=30))
def test_standardised_numbers_have_mean_zero_and_deviation_one(values: list[float | None]) -> None:
    column = pa.array(values, pa.float64())
    encoder = Encoder.fit(Feature(column="c", kind="numeric"), column)
    known = np.array([value for value in values if value is not None])
    expected = (known - known.mean()) / (known.std() or 1.0) if known.size else known
    found = encoder.numbers(column)
    assert found[np.array([value is not None for value in values])] == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert not found[np.array([value is None for value in values])].any()
