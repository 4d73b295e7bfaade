"""Numbers that are narrow on their way come back as they were."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raycl.storage.narrow import narrowed, widened

ENDS = [-(2**63), -1, 0, 1, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**63 - 1]


@settings(deadline=None, derandomize=True)
@given(st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.sampled_from(ENDS)), max_size=6))
def test_every_column_of_numbers_comes_back_bit_for_bit(values: list[int | None]) -> None:
    table = pa.table({"number": pa.array(values, pa.int64()), "event": pa.array([0] * len(values), pa.uint8())})
    assert widened(narrowed(table)).equals(table, check_metadata=True)


@pytest.mark.parametrize(
    ("span", "kind"),
    [
        (0, pa.uint8()),
        (255, pa.uint8()),
        (256, pa.uint16()),
        (65_536, pa.uint32()),
        (2**32 - 1, pa.uint32()),
        (2**32, pa.int64()),
    ],
)
@pytest.mark.parametrize("least", [-(2**62), -7, 0, 2**61])
def test_numbers_are_as_narrow_as_their_range_lets_them(span: int, kind: pa.DataType, least: int) -> None:
    table = pa.table({"number": [least, None, least + span]})
    assert narrowed(table).schema.field("number").type == kind
    assert widened(narrowed(table)) == table


def test_some_rows_come_back_and_what_a_schema_says_stays() -> None:
    number = pa.field("number", pa.int64(), nullable=False, metadata={b"unit": b"ms"})
    table = pa.table([pa.array([1_000, 1_005, 1_009])], schema=pa.schema([number], metadata={b"a": b"b"}))
    assert widened(narrowed(table).slice(1, 1)).equals(table.slice(1, 1), check_metadata=True)


def test_other_columns_stay_as_they_are() -> None:
    table = pa.table({"text": ["a", None], "ratio": [0.5, 1.5], "row": pa.array([1, 2], pa.int32())})
    assert narrowed(table).equals(table, check_metadata=True)
    assert widened(table).equals(table, check_metadata=True)
    assert narrowed(pa.table({"number": pa.nulls(2, pa.int64())})).schema.field("number").type == pa.int64()
