"""What a column of each type can be used as: what is accepted never ends in an error of Arrow's."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raycl import journey
from raycl.data import column_types, ray_pairs
from raycl.data.column_types import FEATURES, Use
from raycl.errors import InputError
from tests.data import whole
from tests.data.builders import write_parquet

NUMBERS = [pa.int8(), pa.uint16(), pa.int64(), pa.uint64(), pa.float16(), pa.float32(), pa.float64()]
TEXTS = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
MOMENTS = [
    pa.date32(),
    pa.date64(),
    *(pa.timestamp(unit) for unit in ("s", "ms", "us", "ns")),
    pa.timestamp("us", "UTC"),
]
QUANTITIES = [*NUMBERS, pa.bool_(), pa.decimal128(9, 2), pa.decimal256(40, 3)]
WORDS = [*TEXTS, *QUANTITIES, *MOMENTS, pa.dictionary(pa.int32(), pa.int64())]
LISTS = [pa.list_(pa.string()), pa.large_list(pa.int32()), pa.list_(pa.timestamp("ms"))]
OTHERS = [
    pa.binary(),
    pa.time32("s"),
    pa.duration("ms"),
    pa.struct([("x", pa.int8())]),
    pa.list_(pa.list_(pa.string())),
    pa.map_(pa.string(), pa.int8()),
    pa.dictionary(pa.int8(), pa.binary()),
    pa.list_(pa.binary()),
    pa.list_(pa.string(), 1),
]
VECTORS = [pa.list_(pa.float32()), pa.large_list(pa.int32()), pa.list_(pa.float16()), pa.list_(pa.float64(), 1)]
EVERY = [pa.null(), *WORDS, *LISTS, *VECTORS[:1], *VECTORS[2:], *OTHERS]


@pytest.mark.parametrize(
    ("use", "accepted"),
    [
        (column_types.ID, [*NUMBERS, *TEXTS]),
        (column_types.TIME, [*NUMBERS, *MOMENTS]),
        (column_types.EVENT, WORDS),
        (column_types.WEIGHT, QUANTITIES),
        (column_types.CONTEXT, [*NUMBERS, *TEXTS, pa.bool_(), pa.dictionary(pa.int32(), pa.int64())]),
        (column_types.TITLE, WORDS),
        (column_types.SHOWN, EVERY[1:]),
        (FEATURES["categorical"], WORDS),
        (FEATURES["hashed"], WORDS),
        (FEATURES["multi"], [*WORDS, *LISTS, VECTORS[0], VECTORS[2]]),
        (FEATURES["numeric"], [*QUANTITIES, *TEXTS]),
        (FEATURES["text"], WORDS),
        (FEATURES["vector"], VECTORS),
    ],
)
def test_a_use_accepts_these_types_and_nulls(use: Use, accepted: list[pa.DataType]) -> None:
    assert {str(kind) for kind in EVERY if use.accepts(kind)} == {str(kind) for kind in (pa.null(), *accepted)}


def some(kind: pa.DataType, size: int) -> Any:
    """A column of this type: numbers from 1 where Arrow can turn them into it, with a null, else nulls."""
    values = pa.array([*range(1, size), None])
    if pa.types.is_dictionary(kind):
        return some(kind.value_type, size).dictionary_encode().cast(kind)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.array([[one] for one in some(kind.value_type, size).to_pylist()], kind)
    for through in (None, pa.string(), pa.int32()):
        try:
            return (values if through is None else values.cast(through)).cast(kind)
        except pa.ArrowException:
            continue
    return pa.nulls(size, kind)


@pytest.mark.parametrize("kind", EVERY, ids=str)
@pytest.mark.parametrize(
    "role",
    ["user", "item", "time", "event", "weight", "split", "context", "categorical", "multi", "text", "hashed", "vector"],
)
def test_a_log_or_catalogue_of_any_type_is_read_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: pa.DataType, role: str
) -> None:
    whole.without_ray(monkeypatch)
    number = np.arange(20)
    log = {"user": number // 5, "item": number % 5, "time": 1 + number, "weight": number, "event": number % 2}
    columns = {name: name for name in log} | ({role: role} if role in ("split", "context") else {})
    catalogue = {"id": number[:5], "odd": some(kind, 5)}
    table = pa.table(log | ({role: some(kind, 20)} if role in ("split", "context", *log) else {}))
    write_parquet(table, tmp_path / "log")
    write_parquet(pa.table(catalogue), tmp_path / "items")
    items = {"uri": str(tmp_path / "items"), "id_column": "id", "title_column": None, "display": ["odd"]}
    features = [{"column": "odd", "kind": role, "length": 1 if role == "vector" else None}] if role in FEATURES else []
    settings = whole.config(
        tmp_path,
        {"split": {"kind": "column"}} if role == "split" else {},
        logs=[{"uri": str(tmp_path / "log"), "columns": columns}],
        event_weights={"0": 1.0, "1": 2.0},
        items=items | {"features": features} if role in FEATURES else None,
        users=None,
    )
    with contextlib.suppress(InputError):
        ray_pairs.run(settings, journey.workspace(settings))
