"""Raw rows to events: one reason a bad row, and no row lost."""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raycl import schema
from raycl.config import LogSource, PairRules
from raycl.data.clean import REASONS, Cleaner, count_reasons, positive
from raycl.data.id_map import IdMap
from raycl.errors import InputError
from tests.data.builders import many_cases

LATEST_MS = 2_000_000_000_000
WEIGHTS = {"view": 1.0, "buy": 3.0}
NAMED = {"user": "u", "item": "i", "time": "t", "event": "e", "weight": "w", "split": "s"}
GOOD: dict[str, Any] = {"u": 1, "i": 11, "t": 1_000, "e": "view", "w": 1.0, "s": "train"}
FAULTS: dict[str, dict[str, Any]] = {
    "null_user": {"u": None},
    "null_item": {"i": None},
    "null_time": {"t": None},
    "time_out_of_range": {"t": 0},
    "unknown_event": {"e": "hover"},
    "bad_weight": {"w": -1.0},
    "unknown_split": {"s": "holdout"},
    "unknown_item": {"i": 99},
}
NUMBER = pa.schema(
    [
        ("u", pa.int64()),
        ("i", pa.int64()),
        ("t", pa.int64()),
        ("e", pa.string()),
        ("w", pa.float64()),
        ("s", pa.string()),
    ]
)
TEXT = NUMBER.set(0, pa.field("u", pa.string())).set(1, pa.field("i", pa.string()))


def cleaner(*columns: str, unit: str = "s", kind: pa.DataType | None = None, known: IdMap | None = None) -> Cleaner:
    """A cleaner of logs with user, item and these other columns."""
    named = {role: name if role in ("user", "item", *columns) else None for role, name in NAMED.items()}
    log = LogSource.model_validate({"uri": "unused", "columns": named, "time_unit": unit})
    kind = kind or pa.int64()
    return Cleaner(log, WEIGHTS, LATEST_MS, kind, kind, known)


FULL = cleaner("time", "event", "weight", "split", known=IdMap(pa.array([11, 12])))


def rows(*changes: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist([GOOD | change for change in changes], schema=NUMBER)


def times_of(column: Any, unit: str = "s") -> list[int | str]:
    """What becomes of one time a row: milliseconds, or the reason."""
    table = pa.table({"u": np.arange(len(column)), "i": np.arange(len(column)), "t": column})
    events, bad = cleaner("time", unit=unit).clean(table)
    found = dict(zip(events["user"].to_pylist(), events["time_ms"].to_pylist(), strict=True))
    found |= dict(zip(bad["u"].to_pylist(), bad["reason"].to_pylist(), strict=True))
    return [found[row] for row in range(len(column))]


def users_of(column: Any, kind: pa.DataType) -> list[Any]:
    events, _ = cleaner(kind=kind).clean(pa.table({"u": column, "i": column}))
    return list(events["user"].to_pylist())


def test_the_faults_cover_every_reason() -> None:
    assert tuple(FAULTS) == REASONS


@pytest.mark.parametrize("reason", REASONS)
def test_a_row_with_one_fault_carries_its_reason(reason: str) -> None:
    events, bad = FULL.clean(rows({}, FAULTS[reason], {"u": 2}))
    assert events["user"].to_pylist() == [1, 2]
    assert bad.to_pylist() == [GOOD | FAULTS[reason] | {"reason": reason, "row": 1}]


def test_a_bad_row_keeps_its_number_in_the_file() -> None:
    table = rows({}, {"u": None}, {}, {"i": None})
    assert FULL.clean(table)[1]["row"].to_pylist() == [1, 3]
    assert FULL.clean(table, first_row=1_000)[1]["row"].to_pylist() == [1_001, 1_003]


@pytest.mark.parametrize("first", range(len(REASONS)))
def test_the_first_of_several_reasons_wins(first: int) -> None:
    for other in REASONS[first:]:
        _, bad = FULL.clean(rows(FAULTS[other] | FAULTS[REASONS[first]]))
        assert bad["reason"].to_pylist() == [REASONS[first]]


def test_a_good_row_becomes_an_event() -> None:
    events, bad = FULL.clean(rows({"e": "buy", "w": 0.5, "s": "valid", "i": 12}))
    assert bad.num_rows == 0
    assert events.schema == schema.events(pa.int64(), pa.int64())
    assert events.to_pylist() == [{"user": 1, "item": 12, "time_ms": 1_000_000, "weight": 1.5, "event": 1, "split": 1}]


@pytest.mark.parametrize(("name", "code"), [("train", 0), ("val", 1), ("valid", 1), ("validation", 1), ("test", 2)])
def test_a_part_has_its_code(name: str, code: int) -> None:
    assert FULL.clean(rows({"s": name}))[0]["split"].to_pylist() == [code]


@pytest.mark.parametrize("name", [None, "", "Train", "dev"])
def test_any_other_part_is_unknown(name: str | None) -> None:
    assert FULL.clean(rows({"s": name}))[1]["reason"].to_pylist() == ["unknown_split"]


@pytest.mark.parametrize("event", [None, "", "View"])
def test_an_event_type_that_has_no_weight_is_unknown(event: str | None) -> None:
    assert FULL.clean(rows({"e": event}))[1]["reason"].to_pylist() == ["unknown_event"]


@pytest.mark.parametrize("weight", [None, float("nan"), float("inf"), float("-inf"), -0.001])
def test_a_weight_that_is_negative_or_not_finite_is_bad(weight: float | None) -> None:
    assert FULL.clean(rows({"w": weight}))[1]["reason"].to_pylist() == ["bad_weight"]


def test_a_weight_that_overflows_by_its_event_type_is_bad() -> None:
    events, bad = FULL.clean(rows({"w": 3e38}, {"w": 3e38, "e": "buy"}, {"w": 1e200}))
    assert events["weight"].to_pylist() == [pytest.approx(3e38)]
    assert bad["reason"].to_pylist() == ["bad_weight"] * 2


def test_a_weight_may_be_an_integer_or_zero() -> None:
    table = pa.table({"u": [1, 2], "i": [1, 2], "w": pa.array([0, 7], pa.int16())})
    assert cleaner("weight").clean(table)[0]["weight"].to_pylist() == [0.0, 7.0]


def test_a_weight_on_the_scale_of_its_logarithm_is_that_of_one_more() -> None:
    log = LogSource.model_validate(
        {"uri": "unused", "columns": {"user": "u", "item": "i", "time": None, "weight": "w"}, "weight_scale": "log"}
    )
    table = pa.table({"u": range(5), "i": range(5), "w": [0.0, 1.0, 999.0, -0.5, -2.0]})
    events, bad = Cleaner(log, {}, LATEST_MS, pa.int64(), pa.int64()).clean(table)
    assert events["weight"].to_pylist() == pytest.approx([0.0, np.log(2.0), np.log(1000.0)])
    assert bad["reason"].to_pylist() == ["bad_weight"] * 2


def test_a_weight_that_is_no_number_is_refused() -> None:
    with pytest.raises(InputError, match=r"columns\.weight=w is of type string: use a number"):
        cleaner("weight").clean(pa.table({"u": [1], "i": [1], "w": ["heavy"]}))


@pytest.mark.parametrize("role", ["event", "split"])
def test_a_word_of_another_type_is_refused(role: str) -> None:
    table = pa.table({"u": [1], "i": [1], NAMED[role]: [["view"]]})
    with pytest.raises(
        InputError, match=rf"columns\.{role}={NAMED[role]} is of type list<.*>: use strings or integers"
    ):
        cleaner(role).clean(table)


def test_without_the_optional_columns_every_row_is_a_plain_event() -> None:
    events, _ = cleaner().clean(pa.table({"u": [5], "i": [6]}))
    assert events.to_pylist() == [{"user": 5, "item": 6, "time_ms": 0, "weight": 1.0, "event": 0, "split": 0}]


@pytest.mark.parametrize(
    ("unit", "milliseconds"),
    [("s", 1_500_000), ("ms", 1_500), ("us", 1), ("ns", "out"), ("order", 1_501_000)],
)
def test_an_integer_time_is_in_its_unit(unit: str, milliseconds: int | str) -> None:
    expected = "time_out_of_range" if milliseconds == "out" else milliseconds
    for kind in (pa.int16(), pa.uint32(), pa.int64(), pa.uint64(), pa.float64(), pa.float32()):
        assert times_of(pa.array([1_500], kind), unit) == [expected]


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint64(), pa.float32()])
def test_an_order_starts_at_zero_and_a_time_does_not(kind: pa.DataType) -> None:
    places = pa.array([0, 1, None], kind)
    assert times_of(places, "order") == [1_000, 2_000, "null_time"]
    assert times_of(places, "s") == ["time_out_of_range", 1_000, "null_time"]


def test_what_is_no_place_in_an_order_is_out_of_range() -> None:
    assert times_of([-1.0, float("nan"), float("inf"), 2.0**62], "order") == ["time_out_of_range"] * 4
    assert times_of(pa.array([-1, 2**63 - 1, -(2**63)], pa.int64()), "order") == ["time_out_of_range"] * 3


def test_fractions_of_a_second_are_kept_to_the_millisecond() -> None:
    assert times_of([1.25, 1_500.0]) == [1_250, 1_500_000]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_no_time_overflows(unit: str) -> None:
    most, out = 2**63 - 1, "time_out_of_range"
    # So many nanoseconds are three months after 1970; of any other unit they are too many.
    believable = most // 1000 // 1_000_000 if unit == "ns" else out
    assert times_of(pa.array([most, -most, 0, -1, most // 1000], pa.int64()), unit) == [out] * 4 + [believable]
    assert times_of(pa.array([2**64 - 1, 2**63], pa.uint64()), unit) == [out] * 2
    floats = [float("inf"), float("-inf"), 1e300, -1e300, float(most), 2.0**62, float(most // 1000)]
    assert times_of(floats, unit) == [out] * 6 + [believable]


def test_a_time_that_is_not_a_number_is_out_of_range() -> None:
    assert times_of(pa.array([float("nan"), 1.0])) == ["time_out_of_range", 1_000]


def test_the_newest_believable_time_is_exclusive() -> None:
    assert times_of([LATEST_MS - 1, LATEST_MS, 1], "ms") == [LATEST_MS - 1, "time_out_of_range", 1]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "Asia/Kolkata"])
def test_a_timestamp_carries_its_own_unit(unit: str, zone: str | None) -> None:
    moments = pa.array([1_600_000_000, None], pa.timestamp("s")).cast(pa.timestamp(unit, zone))
    assert times_of(moments, "ns") == [1_600_000_000_000, "null_time"]


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64()])
def test_a_date_is_its_midnight(kind: pa.DataType) -> None:
    days = pa.array([datetime.date(1970, 1, 3), datetime.date(1969, 12, 31), None], kind)
    assert times_of(days) == [2 * 86_400_000, "time_out_of_range", "null_time"]


def test_a_time_of_another_type_is_refused() -> None:
    with pytest.raises(InputError, match=r"columns\.time=t is of type string: use a timestamp or an integer"):
        times_of(["2024-01-01"])


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint32(), pa.int64(), pa.float16(), pa.float64()])
def test_whole_numbers_are_ids(kind: pa.DataType) -> None:
    assert users_of(pa.array([3, None, 4], kind), pa.int64()) == [3, 4]


def test_numbers_that_are_not_whole_are_no_ids() -> None:
    column = [1.0, 1.5, float("nan"), float("inf"), float("-inf"), 1e300, -2.0]
    assert users_of(column, pa.int64()) == [1, -2]


@pytest.mark.parametrize("kind", [pa.int64(), pa.large_string()])
def test_a_column_of_nulls_holds_no_ids_and_no_times(kind: pa.DataType) -> None:
    assert users_of(pa.nulls(2), kind) == []
    assert times_of(pa.nulls(1)) == ["null_time"]


def test_empty_strings_are_no_ids() -> None:
    assert users_of(["a", "", None, " "], pa.large_string()) == ["a", " "]
    assert users_of(pa.array(["a", "", None, "a"]).dictionary_encode(), pa.large_string()) == ["a", "a"]


def test_an_id_that_does_not_fit_64_bits_is_refused() -> None:
    with pytest.raises(InputError, match="column 'u' does not fit int64"):
        users_of(pa.array([2**64 - 1], pa.uint64()), pa.int64())


def test_a_table_in_chunks_is_cleaned_as_one() -> None:
    table = rows({}, {"u": None}, {"e": "buy"}, {"w": -1.0})
    chunked = pa.concat_tables([table.slice(0, 1), table.slice(1, 0), table.slice(1)])
    assert [part.to_pylist() for part in FULL.clean(chunked)] == [part.to_pylist() for part in FULL.clean(table)]


def test_reasons_are_counted_in_their_order() -> None:
    _, bad = FULL.clean(rows(*FAULTS.values(), FAULTS["unknown_item"], {}))
    assert list(count_reasons(bad).items()) == [(reason, 1 + (reason == "unknown_item")) for reason in REASONS]


def test_no_rows_make_no_events() -> None:
    events, bad = FULL.clean(NUMBER.empty_table())
    assert (events.num_rows, bad.num_rows, count_reasons(bad)) == (0, 0, {})
    assert events.schema == schema.events(pa.int64(), pa.int64())


def one_row(user: Any, item: Any) -> st.SearchStrategy[dict[str, Any]]:
    times = st.sampled_from([None, -5, 0, 1, 1_000, 2**62])
    weights = st.sampled_from([None, 0.0, 2.0, -1.0, float("nan")])
    return st.fixed_dictionaries(
        {
            "u": st.sampled_from([None, *user]),
            "i": st.sampled_from([None, *item]),
            "t": times,
            "e": st.sampled_from([None, "view", "buy", "x"]),
            "w": weights,
            "s": st.sampled_from([None, "train", "test", "x"]),
        }
    )


def naive_reason(row: dict[str, Any], known: set[Any]) -> str | None:
    """The first fault of a row, by the words of ``REASONS``."""
    faults = {
        "null_user": row["u"] in (None, ""),
        "null_item": row["i"] in (None, ""),
        "null_time": row["t"] is None,
        "time_out_of_range": row["t"] is not None and not 0 < row["t"] * 1000 < LATEST_MS,
        "unknown_event": row["e"] not in WEIGHTS,
        "bad_weight": row["w"] is None or not 0 <= row["w"] < float("inf"),
        "unknown_split": row["s"] not in ("train", "test"),
        "unknown_item": row["i"] not in known,
    }
    return next((reason for reason in REASONS if faults[reason]), None)


@many_cases
@given(st.lists(one_row([-3, 0, 7], [11, 12, 99]), max_size=30))
def test_every_row_with_integer_ids_is_in_exactly_one_output(log: list[dict[str, Any]]) -> None:
    check_conservation(log, NUMBER, FULL, {11, 12})


@many_cases
@given(st.lists(one_row(["a", "", "é"], ["x", "", "y", "z"]), max_size=30))
def test_every_row_with_string_ids_is_in_exactly_one_output(log: list[dict[str, Any]]) -> None:
    known = IdMap(pa.array(["x", "y"], pa.large_string()))
    columns = ("time", "event", "weight", "split")
    check_conservation(log, TEXT, cleaner(*columns, kind=pa.large_string(), known=known), {"x", "y"})


def check_conservation(log: list[dict[str, Any]], raw: pa.Schema, reader: Cleaner, known: set[Any]) -> None:
    table = pa.Table.from_pylist(log, schema=raw)
    events, bad = reader.clean(table)
    reasons = [naive_reason(row, known) for row in log]
    kept = [row for row, reason in zip(log, reasons, strict=True) if reason is None]
    assert events["user"].to_pylist() == [row["u"] for row in kept]
    assert events["item"].to_pylist() == [row["i"] for row in kept]
    assert events["weight"].to_pylist() == [WEIGHTS[row["e"]] * row["w"] for row in kept]
    expected = table.append_column("reason", pa.array(reasons, pa.string()))
    expected = expected.append_column("row", pa.array(range(len(log)), pa.int64())).filter(
        pc.field("reason").is_valid()
    )
    assert repr(bad.to_pylist()) == repr(expected.to_pylist())  # as text, since NaN is not equal to NaN


SKIPS = replace(FULL, negative_events=("skip", "hide"))


def test_types_of_explicit_negatives_have_the_codes_after_the_weighted_ones_and_no_weight() -> None:
    table = rows({"e": "hide", "w": 3.0}, {"e": "skip", "w": None}, {"e": "skip", "w": float("nan")}, {"e": "buy"})
    events, bad = SKIPS.clean(table)
    assert (events["event"].to_pylist(), events["weight"].to_pylist()) == ([3, 2, 2, 1], [0.0, 0.0, 0.0, 3.0])
    assert bad.num_rows == 0
    assert count_reasons(SKIPS.clean(rows({"w": None}, {"e": "hover"}))[1]) == {"unknown_event": 1, "bad_weight": 1}


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({}, [0, 1, 2, 3]),
        ({"negative_events": ["skip"]}, [0, 1, 3]),
        ({"negative_below": 1.0}, [1, 3]),  # a type without weight is below any bound
        ({"negative_events": ["skip"], "negative_below": 1.5}, [3]),
    ],
)
def test_positive_events_are_those_that_no_rule_calls_negative(settings: dict[str, Any], kept: list[int]) -> None:
    chosen = PairRules.model_validate(settings)
    events, _ = SKIPS.clean(rows({"u": 0, "w": 0.5}, {"u": 1}, {"u": 2, "e": "skip"}, {"u": 3, "e": "buy"}))
    assert positive(events, chosen, len(WEIGHTS))["user"].to_pylist() == kept
    if chosen.negative_below is None:
        without = events.drop_columns("weight")
        assert positive(without, chosen, len(WEIGHTS))["user"].to_pylist() == kept


CARRIED: list[tuple[Any, pa.DataType, list[Any]]] = [
    (pa.array([7, None], pa.uint8()), pa.int64(), [7, None]),
    (pa.array([0.5, None], pa.float32()), pa.float64(), [0.5, None]),
    (pa.array([True, None]), pa.bool_(), [True, None]),
    (pa.array(["pe", None]), pa.large_string(), ["pe", None]),
    (pa.array(["", "pe"]).dictionary_encode(), pa.large_string(), ["", "pe"]),
    (pa.array([b"\xff", b"pe"]).view(pa.string()), pa.large_string(), [None, "pe"]),
    (pa.nulls(2), pa.large_string(), [None, None]),
]


@pytest.mark.parametrize(("column", "kind", "kept"), CARRIED)
def test_context_goes_along_with_good_events_in_its_own_type(column: Any, kind: pa.DataType, kept: list[Any]) -> None:
    assert schema.context_type(column.type) == kind
    log = LogSource.model_validate({"uri": "unused", "columns": NAMED | {"context": ["d"]}})
    table = rows({}, {"u": None}, {"u": 2}).append_column("d", pa.concat_arrays([column[:1], column[:1], column[1:]]))
    events, bad = replace(FULL, log=log, context={"d": kind}).clean(table)
    assert events.schema == schema.events(pa.int64(), pa.int64(), context={"d": kind})
    assert events["context_d"].to_pylist() == kept
    assert bad.column_names == [*table.column_names, "reason", "row"]


def test_context_that_does_not_fit_is_refused_by_name() -> None:
    log = LogSource.model_validate({"uri": "unused", "columns": NAMED | {"context": ["d"]}})
    table = rows({}).append_column("d", pa.array([2**63], pa.uint64()))
    with pytest.raises(InputError, match=r"column 'd' does not fit int64: "):
        replace(FULL, log=log, context={"d": pa.int64()}).clean(table)
