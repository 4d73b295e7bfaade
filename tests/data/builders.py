"""Logs in memory and on disk for the tests of the pairs stage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import settings

from raycl import schema
from raycl.data.sequences import Built
from tests.data.reference import PARTS, Event, Id, Packed

few_cases = settings(deadline=None, max_examples=40, derandomize=True)
many_cases = settings(deadline=None, max_examples=150, derandomize=True)


def arrow_type(ids: Iterable[Id]) -> pa.DataType:
    """The type that these ids are kept in; int64 for none."""
    return pa.large_string() if any(isinstance(raw, str) for raw in ids) else pa.int64()


def ids(raw: Sequence[Id]) -> Any:
    """Ids as one Arrow array."""
    return pa.array(raw, arrow_type(raw))


def events_table(log: Sequence[Event], kind: pa.DataType | None = None) -> pa.Table:
    """``schema.events`` of these rows, in their order; ``kind`` is the type of all ids."""
    kinds = [kind or arrow_type(ids) for ids in ([event.user for event in log], [event.item for event in log])]
    columns = [[event[place] for event in log] for place in range(6)]
    wanted = schema.events(*kinds)
    return pa.Table.from_arrays([pa.array(c, f.type) for c, f in zip(columns, wanted, strict=True)], schema=wanted)


def packed(table: pa.Table) -> list[Packed]:
    """The rows of one part."""
    rows = table.to_pylist()
    return [
        Packed(
            row["user"],
            row["user_row"],
            row["first_target"],
            tuple(row["items"]),
            tuple(row["weights"]),
            tuple(row["times_ms"]),
        )
        for row in rows
    ]


def packed_parts(built: Built) -> dict[str, list[Packed]]:
    """The rows of every part."""
    return {part: packed(built.parts[part]) for part in PARTS}


def write_parquet(table: pa.Table, folder: Path, *, num_files: int = 1, rows_per_group: int = 1_000_000) -> None:
    """Write the rows, in order, as equal files under ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    ends = np.linspace(0, table.num_rows, num_files + 1).astype(int)
    for number in range(num_files):
        part = table.slice(ends[number], ends[number + 1] - ends[number])
        pq.write_table(part, folder / f"part-{number:03d}.parquet", row_group_size=rows_per_group)


def in_this_process(_: str, task: Callable[[int], dict[str, Any]], num_tasks: int) -> list[dict[str, Any]]:
    """``ray_runtime.map_tasks`` as a loop, for tests of what the tasks do and not of where they run."""
    return [task(number) for number in range(num_tasks)]
