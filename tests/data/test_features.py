"""Fitted features: tokens and numbers against values worked out by hand, from tables and from plain dictionaries."""

from __future__ import annotations

import itertools
import json
import math
import zlib
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raycl.config import Feature
from raycl.data.features import PADDING, UNKNOWN, Encoder, Encoders
from raycl.errors import InputError
from tests.data.builders import few_cases, many_cases


def fit(values: Any, kind: str, **settings: Any) -> Encoder:
    return Encoder.fit(Feature.model_validate({"column": "c", "kind": kind} | settings), pa.array(values))


def bags(encoder: Encoder, values: Any, kind: pa.DataType | None = None) -> list[list[int]]:
    """The tokens of each row."""
    offsets, tokens = encoder.tokens(pa.array(values, kind))
    return [tokens[start:stop].tolist() for start, stop in itertools.pairwise(offsets)]


def word(text: str, num_buckets: int) -> int:
    return zlib.crc32(text.encode()) % num_buckets + 2


def test_categorical_values_are_numbered_by_how_frequent_they_are_then_by_name() -> None:
    encoder = fit(["b", "a", "c", "a", None, "", "c", "d"], "categorical")
    assert encoder.values == ("a", "c", "b", "d")
    assert encoder.num_tokens == 6
    assert bags(encoder, ["a", "d", "b"]) == [[2], [5], [4]]


@pytest.mark.parametrize(
    ("kind", "nothing"),
    [
        ("categorical", [None, "", "new"]),
        ("multi", [None, "", "new|newer", "|"]),
        ("text", [None, "", " ... "]),
        ("hashed", [None, ""]),
    ],
)
def test_a_row_of_which_nothing_is_known_has_the_token_of_the_unknown_and_never_that_of_padding(
    kind: str, nothing: list[str | None]
) -> None:
    encoder = fit(["a", "b"], kind, **({} if kind in ("categorical", "multi") else {"num_buckets": 7}))
    assert bags(encoder, nothing, pa.string()) == [[UNKNOWN]] * len(nothing)
    assert all(token not in (PADDING, UNKNOWN) for bag in bags(encoder, ["a", "b"]) for token in bag)


def test_only_the_most_frequent_values_are_kept() -> None:
    encoder = fit(["b", "a", "c", "a", "c", "c"], "categorical", max_values=2)
    assert encoder.values == ("c", "a")
    assert bags(encoder, ["b", "a"]) == [[UNKNOWN], [3]]


def test_the_values_are_indexed_once_and_that_changes_no_encoder() -> None:
    """A server encodes one row at a time; the index is neither compared, nor hashed, nor written."""
    used, fresh = fit(["b", "a", "a"], "categorical"), fit(["b", "a", "a"], "categorical")
    before = used._token_of
    assert bags(used, ["b"]) == bags(used, ["b"]) == [[3]]
    assert used._token_of is before
    assert used == fresh
    assert hash(used) == hash(fresh)
    assert Encoders((used,)).to_json() == Encoders((fresh,)).to_json()


def test_categorical_numbers_are_their_text() -> None:
    encoder = fit([30, 4, 4], "categorical")
    assert encoder.values == ("4", "30")
    assert bags(encoder, [30, None]) == [[3], [UNKNOWN]]


@pytest.mark.parametrize(
    "values", [["x|y", "y", "", None, "y||z"], [["x", "y"], ["y"], [], None, ["y", "", None, "z"]]]
)
def test_a_multi_feature_is_a_list_or_a_string_cut_at_its_separator(values: Any) -> None:
    encoder = fit(values, "multi")
    assert encoder.values == ("y", "x", "z")
    assert bags(encoder, values) == [[3, 2], [2], [UNKNOWN], [UNKNOWN], [2, 4]]


def test_an_unseen_value_is_passed_over_beside_a_known_one() -> None:
    assert bags(fit([["x"], ["y"]], "multi"), [["new", "y", "newer"], ["new"]]) == [[3], [UNKNOWN]]


def test_the_separator_is_no_pattern() -> None:
    encoder = fit(["a.b", "a"], "multi", separator=".")
    assert encoder.values == ("a", "b")


def test_a_slice_of_lists_keeps_its_rows_apart() -> None:
    lists = pa.array([["x"], ["y", "x"], None, ["z"]]).slice(1)
    encoder = Encoder.fit(Feature(column="c", kind="multi"), lists)
    offsets, tokens = encoder.tokens(lists)
    assert (offsets.tolist(), tokens.tolist()) == ([0, 2, 3, 4], [3, 2, UNKNOWN, 4])


def test_text_is_hashed_words_in_lower_case() -> None:
    encoder = fit(["unused"], "text", num_buckets=50)
    assert encoder.num_tokens == 52
    expected = [[word(one, 50) for one in words] for words in (["größe", "42"], ["a", "b"])]
    assert bags(encoder, ["GRÖSSE: 42!".replace("SS", "ß"), "a--B"]) == expected


def test_ngrams_of_marked_words_come_after_the_words_of_their_row() -> None:
    encoder = fit(["unused"], "text", num_buckets=10**6, ngrams=3)
    of_tea, of_at = [run(one, 10**6) for one in ("<te", "tea", "ea>")], [run(one, 10**6) for one in ("<at", "at>")]
    expected = [[word("at", 10**6), word("tea", 10**6), *of_at, *of_tea], [word("tea", 10**6), *of_tea], [UNKNOWN]]
    assert bags(encoder, ["At tea", "tea", None]) == expected
    assert word("tea", 10**6) not in of_tea
    assert bags(fit(["unused"], "text", num_buckets=10**6, ngrams=8), ["tea"]) == [[word("tea", 10**6)]]


def test_a_row_keeps_its_first_tokens_which_of_text_are_words() -> None:
    most = fit(["a b c d e"], "text", num_buckets=10**6, ngrams=3, max_tokens=3)
    assert bags(most, ["a b c d", "a", "tea"]) == [
        [word(one, 10**6) for one in ("a", "b", "c")],
        [word("a", 10**6), run("<a>", 10**6)],
        [word("tea", 10**6), run("<te", 10**6), run("tea", 10**6)],
    ]
    assert bags(fit(["x|y|z"], "multi", max_tokens=2), ["new|z|y|x", "x"]) == [[4, 3], [2]]


def test_a_hashed_value_has_as_many_tokens_as_hashes_and_another_value_shares_few_of_them() -> None:
    values = [f"u{number}" for number in range(2_000)]
    encoder = fit(values, "hashed", num_buckets=4_000, num_hashes=3)
    assert encoder.num_tokens == 4_002
    found = bags(encoder, values)
    assert {len(bag) for bag in found} == {3}
    assert all(2 <= token < encoder.num_tokens for bag in found for token in bag)
    # A birthday problem over the sets: one hash alone would have about 440 pairs of values that are taken for another.
    assert len({tuple(bag) for bag in found}) == len(values)
    assert len({bag[0] for bag in found}) < len(values) - 300
    assert bags(encoder, values[7:9]) == found[7:9]


def test_a_hashed_number_is_its_text() -> None:
    encoder = fit([1, 2], "hashed")
    assert bags(encoder, [31, None]) == [*bags(encoder, ["31"]), [UNKNOWN]]


def run(text: str, num_buckets: int) -> int:
    return zlib.crc32(text.encode(), 1) % num_buckets + 2


def test_numbers_are_standardised_by_what_was_finite_and_the_unknown_is_no_number() -> None:
    values = [2.0, 4.0, None, float("nan"), float("inf")]
    encoder = fit(values, "numeric")
    assert (encoder.mean, encoder.deviation, encoder.num_tokens) == (3.0, 1.0, 0)
    assert encoder.numbers(pa.array([*values, 7.0])).tolist() == pytest.approx([-1, 1, *[math.nan] * 3, 4], nan_ok=True)
    assert encoder.encode(pa.array([*values, 7.0])).to_pylist() == [-1.0, 1.0, None, None, None, 4.0]


@pytest.mark.parametrize("transform", ["standard", "log", "buckets"])
def test_infinite_numbers_are_counted_and_leave_no_trace_in_those_of_others(transform: str) -> None:
    """1e300 is finite, and the square of it is not: the deviation would be infinite and every number zero."""
    bad = [math.inf, -math.inf, 1e300]
    good = [1.0, 2.0, 4.0, None, math.nan, 8.0]
    feature = Feature(column="c", kind="numeric", transform=transform)  # type: ignore[arg-type]
    plain, spoilt = (pa.table({"c": values}) for values in (good, good + bad))
    expected, found = (Encoders.fit([feature], table) for table in (plain, spoilt))
    assert found == expected
    encoded = found.encode(spoilt)
    assert encoded["c"].to_pylist()[:6] == expected.encode(plain)["c"].to_pylist()
    assert encoded["c"].to_pylist()[6:] == [None if transform != "buckets" else [UNKNOWN]] * 3
    assert found.unusable(spoilt, encoded) == {"c_not_finite": 3}
    assert found.unusable(plain, found.encode(plain)) == {}


@pytest.mark.parametrize("asked", [1e30, 1e99, -1e300, math.inf])
def test_a_number_far_beyond_those_it_was_fitted_on_is_unknown(asked: float) -> None:
    """As a float32 it would be infinite, or its gradients would be."""
    encoded = Encoders((fit([1.0, 2.0, 4.0], "numeric"),)).encode_rows([{"c": asked}, {"c": 1e6}])
    assert encoded["c"].to_pylist()[0] is None
    assert encoded["c"].to_pylist()[1] > 1e5


def test_the_logarithm_keeps_sign_and_order_before_it_is_standardised() -> None:
    values = [-(math.e - 1), 0.0, math.e - 1, None, float("inf")]
    encoder = fit(values, "numeric", transform="log")
    assert (encoder.mean, encoder.deviation) == pytest.approx((0.0, math.sqrt(2 / 3)))
    deviation = encoder.deviation
    expected = [-1 / deviation, 0.0, 1 / deviation, math.nan, math.nan]
    assert encoder.numbers(pa.array(values)).tolist() == pytest.approx(expected, nan_ok=True)


def test_buckets_hold_equally_many_rows_and_reach_to_both_ends() -> None:
    encoder = fit([*map(float, range(8)), None, float("nan")], "numeric", transform="buckets", num_buckets=4)
    assert encoder.edges == (2.0, 4.0, 6.0)
    assert (encoder.form, encoder.num_tokens) == ("tokens", 6)
    found = bags(encoder, [0.0, 1.9, 2.0, 5.0, 7.0, -1e9, 1e9, None, float("inf")])
    assert found == [[2], [2], [3], [4], [5], [2], [5], [UNKNOWN], [UNKNOWN]]


@pytest.mark.parametrize("values", [[None, None], [], [3.0, 3.0]])
def test_buckets_of_a_column_without_spread_are_one_or_two(values: list[float | None]) -> None:
    column = pa.array(values, pa.float64())
    encoder = Encoder.fit(Feature(column="c", kind="numeric", transform="buckets"), column)
    assert len(encoder.edges) <= 1
    assert all(2 <= token < encoder.num_tokens for (token,) in bags(encoder, [2.0, 3.0, 4.0]))


FLOATS = [pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float64(), 2), pa.list_(pa.float16())]


@pytest.mark.parametrize("kind", FLOATS, ids=str)
def test_a_given_vector_is_read_from_lists_of_any_kind_and_a_null_is_missing(kind: pa.DataType) -> None:
    encoder = fit([[1.0, 2.0]], "vector", length=2)
    column = pa.array([[0.5, -2.0], None, [3.0, 0.0]], kind)
    assert (encoder.form, encoder.num_tokens) == ("vector", 0)
    assert encoder.encode(column).to_pylist() == [[0.5, -2.0], None, [3.0, 0.0]]
    assert encoder.encode(column.slice(1)).to_pylist() == [None, [3.0, 0.0]]
    assert encoder.plain(column).to_pylist() == [[0.5, -2.0], None, [3.0, 0.0]]


def test_a_vector_of_another_length_or_with_a_number_that_is_not_finite_is_missing_and_counted() -> None:
    bad = [[1.0, math.nan], [math.inf, 0.0], [1.0, None], [1e300, 0.0]]
    table = pa.table({"c": [[1.0, 2.0], None, [1.0], [1.0, 2.0, 3.0], [], *bad, [0.0, 0.0]]})
    fitted = Encoders.fit([Feature(column="c", kind="vector", length=2)], table)
    encoded = fitted.encode(table)
    assert encoded["c"].to_pylist() == [[1.0, 2.0], *[None] * 8, [0.0, 0.0]]
    assert fitted.unusable(table, encoded) == {"c_null": 1, "c_wrong_length": 3, "c_not_finite": 4}


def test_a_length_that_no_vector_has_is_refused_with_the_length_that_most_have() -> None:
    feature, values = Feature(column="c", kind="vector", length=3), [[1.0, 2.0], [3.0, 4.0], [1.0], None]
    with pytest.raises(InputError, match=r"column 'c' holds no vector of length=3; .* most have 2: set length=2"):
        Encoders.fit([feature], pa.table({"c": values}))
    with pytest.raises(InputError, match="of its lists none of them has finite numbers"):
        Encoders.fit([feature], pa.table({"c": [[math.nan] * 3]}))
    unknown = Encoders.fit([feature], pa.table({"c": pa.nulls(2)}))
    assert unknown.encode(pa.table({"c": pa.nulls(2)}))["c"].to_pylist() == [None, None]


@pytest.mark.parametrize("given", [[1.0], [1.0, 2.0, 3.0], [1.0, math.nan], "1,2", [1.0, None], [1.0, "x"]])
def test_somebody_who_asks_with_a_vector_that_does_not_fit_is_told(given: Any) -> None:
    fitted = Encoders((fit([[1.0, 2.0]], "vector", length=2),))
    with pytest.raises(InputError, match=r"user\.c: .* is not a vector value"):
        fitted.encode_rows([{"c": given}])
    with pytest.raises(InputError, match=r"user\.c: .{80} is not a vector value"):
        fitted.encode_rows([{"c": [1.0] * 500}])


@pytest.mark.parametrize("values", [[5, 5, 5], [None, None], []])
def test_a_column_without_spread_is_not_divided_by_zero(values: list[int | None]) -> None:
    column = pa.array(values, pa.int64())
    encoder = Encoder.fit(Feature(column="c", kind="numeric"), column)
    assert encoder.deviation == 1.0
    expected = [math.nan if value is None else 0.0 for value in values]
    assert encoder.numbers(column).tolist() == pytest.approx(expected, nan_ok=True)


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
        "views": [1, 0, None, 10**6, 3],
        "age": [30.0, 31.0, None, 90.0, 30.0],
        "cover": [[0.1, 2.0], None, [-1e-9, 3.0], [0.0, 0.0], [1.0, 1.0]],
        "id": ["i1", "i2", None, "i1", ""],
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
    Feature(column="views", kind="numeric", transform="log"),
    Feature(column="age", kind="numeric", transform="buckets", num_buckets=3),
    Feature(column="cover", kind="vector", length=2),
    Feature(column="id", kind="hashed", num_buckets=50),
)
FITTED = Encoders.fit(FEATURES, TABLE)


def test_a_table_is_encoded_column_by_column() -> None:
    encoded = FITTED.encode(TABLE)
    assert encoded.column_names == [feature.column for feature in FEATURES]
    assert encoded["colour"].to_pylist() == [[2], [3], [1], [2], [1]]
    assert encoded["price"].type == pa.float32()
    assert encoded["flag"].to_pylist() == [[2], [3], [1], [2], [2]]
    assert encoded["cover"].type == pa.list_(pa.float32(), 2)
    for feature in FITTED.bags:
        assert encoded[feature.column].to_pylist() == bags(feature, TABLE[feature.column].combine_chunks())


def test_features_that_become_tokens_numbers_and_vectors_are_told_apart_in_order() -> None:
    assert [feature.column for feature in FITTED.numerics] == ["price", "views"]
    assert [feature.column for feature in FITTED.vectors] == ["cover"]
    others = [f.column for f in FEATURES if f.column not in ("price", "views", "cover")]
    assert [feature.column for feature in FITTED.bags] == others


def test_rows_given_as_dictionaries_are_encoded_as_the_table_is() -> None:
    assert FITTED.encode_rows(TABLE.to_pylist()) == FITTED.encode(TABLE)


def test_each_row_is_encoded_alike_alone_and_among_others() -> None:
    encoded = FITTED.encode(TABLE).to_pylist()
    assert [FITTED.encode_rows([row]).to_pylist()[0] for row in TABLE.to_pylist()] == encoded


def test_a_string_is_cut_at_its_separator_beside_a_list_too() -> None:
    encoded = FITTED.encode_rows([{"tags": "a|b"}, {"tags": ["a", "b"]}, {"tags": None}, {}])
    assert encoded["tags"].to_pylist() == [bags(FITTED.features[1], ["a|b"])[0]] * 2 + [[UNKNOWN]] * 2


def test_an_absent_feature_is_unknown() -> None:
    unknown = {name: None if name in ("price", "views", "cover") else [UNKNOWN] for name in TABLE.column_names}
    assert FITTED.encode_rows([{"colour": "red", "other": 1}]).to_pylist() == [unknown | {"colour": [2]}]


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
            expected.append([word(part, 4096) for part in parts] or [UNKNOWN])
        else:
            places = {known: place + 2 for place, known in enumerate(encoder.values)}
            expected.append([places[part] for part in parts if part in places] or [UNKNOWN])
    assert bags(encoder, column) == expected
    assert all(0 < token < encoder.num_tokens for bag in expected for token in bag)


@few_cases
@given(st.lists(st.none() | st.floats(-1e6, 1e6), min_size=2, max_size=30))
def test_standardised_numbers_have_mean_zero_and_deviation_one(values: list[float | None]) -> None:
    column = pa.array(values, pa.float64())
    encoder = Encoder.fit(Feature(column="c", kind="numeric"), column)
    known = np.array([value for value in values if value is not None])
    expected = (known - known.mean()) / (known.std() or 1.0) if known.size else known
    found = encoder.numbers(column)
    assert found[np.array([value is not None for value in values])] == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert np.isnan(found[np.array([value is None for value in values])]).all()


@pytest.mark.parametrize(("value", "known_by_its_logarithm"), [(1e99, True), (-1e99, True), (1.7e308, False)])
def test_a_number_that_a_float32_cannot_hold_is_unknown(value: float, known_by_its_logarithm: bool) -> None:
    """And one that counts as infinite in a table is unknown whatever its transform."""
    fitted = Encoders.fit((Feature(column="age", kind="numeric"),), pa.table({"age": [1.0, 2.0, 3.0]}))
    assert fitted.encode_rows([{"age": value}]).to_pylist() == [{"age": None}]
    log = Encoders.fit((Feature(column="age", kind="numeric", transform="log"),), pa.table({"age": [1.0, 2.0, 3.0]}))
    assert (log.encode_rows([{"age": value}])["age"][0].as_py() is not None) is known_by_its_logarithm
