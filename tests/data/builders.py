"""Logs in memory and on disk for the tests of the pairs stage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from hypothesis import settings

from raycl import schema
from raycl.config import PairRules
from raycl.data.id_map import IdMap
from raycl.data.sequences import Built, count_items
from raycl.data.vocabulary import sum_by_row
from raycl.storage.versions import Record
from tests.data.reference import PARTS, Event, Id, Packed

few_cases = settings(deadline=None, max_examples=40, derandomize=True)
many_cases = settings(deadline=None, max_examples=150, derandomize=True)


def arrow_type(ids: Iterable[Id]) -> pa.DataType:
    """The type that these ids are kept in; int64 for none."""
    return pa.large_string() if any(isinstance(raw, str) for raw in ids) else pa.int64()


def ids(raw: Sequence[Id]) -> Any:
    """Ids as one Arrow array."""
    return pa.array(raw, arrow_type(raw))


def sorted_ids(raw: Any) -> Any:
    """Distinct ids in ascending order, nulls left out, as one Arrow array."""
    distinct = pc.unique(raw).drop_null()
    return distinct.take(pc.sort_indices(distinct))


class CountedItems(IdMap):
    """Items of which those with fewer than ``least`` events may not be in pairs."""

    def __init__(self, ids: Any, counts: Sequence[int], least: int) -> None:
        super().__init__(ids)
        self._enough = np.append(np.array(counts, dtype=np.int64) >= least, False)

    def rows(self, ids: Any) -> Any:
        rows = super().rows(ids)
        return np.where(self._enough[rows], rows, np.int32(-1))


def trained(built: Built, num_items: int) -> tuple[list[int], list[int]]:
    """Of each item, its events in training and the training pairs whose target it is."""
    found = sum_by_row([count_items(built)], ["train_count", "train_targets"], num_items)
    return found["train_count"].tolist(), found["train_targets"].tolist()


def events_table(
    log: Sequence[Event], kind: pa.DataType | None = None, context: Mapping[str, pa.DataType] = schema.NO_CONTEXT
) -> pa.Table:
    """``schema.events`` of these rows, in their order; ``kind`` is the type of all ids, ``context`` what they carry."""
    kinds = [kind or arrow_type(ids) for ids in ([event.user for event in log], [event.item for event in log])]
    columns = [[event[place] for event in log] for place in range(6)]
    columns += [[event.context[place] for event in log] for place in range(len(context))]
    wanted = schema.events(*kinds, context=context)
    return pa.Table.from_arrays([pa.array(c, f.type) for c, f in zip(columns, wanted, strict=True)], schema=wanted)


def packed(table: pa.Table, part: str, rules: PairRules | None = None) -> list[Packed]:
    """What the table says of one part: the users with targets in it, each with the context and the targets."""
    cold_items = rules is not None and rules.split.kind == "cold_items"
    found = []
    for row in table.to_pylist():
        bounds = [*(row[name] for name in schema.BOUNDS), len(row["items"])]
        start, stop = bounds[PARTS.index(part)], bounds[PARTS.index(part) + 1]
        context = min(start, bounds[1]) if cold_items else start
        if start < stop:
            columns = ["items", "weights", "times_ms", *schema.context_columns(row)]
            items, weights, times, *more = (tuple(row[name][:context] + row[name][start:stop]) for name in columns)
            carried = tuple(zip(*more, strict=True)) or ((),) * len(items)
            negatives = tuple(zip(*(row.get(name, []) for name in schema.NEGATIVES), strict=True))
            found.append(Packed(row["user"], row["user_row"], context, items, weights, times, carried, negatives))
    return found


def packed_parts(built: Built, rules: PairRules | None = None) -> dict[str, list[Packed]]:
    """What the kernel's table says of every part."""
    return {part: packed(built.table, part, rules) for part in PARTS}


def part_table(
    rows: Sequence[Packed],
    part: str = "train",
    *,
    negatives: bool = False,
    context: Mapping[str, pa.DataType] = schema.NO_CONTEXT,
) -> pa.Table:
    """The rows as a table of users who have targets in this part alone; with their ``negatives`` and ``context``."""
    wanted = schema.sequences(pa.int64(), negatives=negatives, context=context)
    code = PARTS.index(part)
    bounds = [[row.first_target if number <= code else len(row.items) for row in rows] for number in range(3)]
    columns = [*([row[place] for row in rows] for place in (0, 1)), *bounds]
    columns += [[row[place] for row in rows] for place in (3, 4, 5)]
    columns += [[[event[place] for event in row.context] for row in rows] for place in range(len(context))]
    columns += [[[one[place] for one in row.negatives] for row in rows] for place in range(3 * negatives)]
    return pa.Table.from_arrays([pa.array(c, f.type) for c, f in zip(columns, wanted, strict=True)], schema=wanted)


def write_parquet(table: pa.Table, folder: Path, *, num_files: int = 1, rows_per_group: int = 1_000_000) -> None:
    """Write the rows, in order, as equal files under ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    ends = np.linspace(0, table.num_rows, num_files + 1).astype(int)
    for number in range(num_files):
        part = table.slice(ends[number], ends[number + 1] - ends[number])
        pq.write_table(part, folder / f"part-{number:03d}.parquet", row_group_size=rows_per_group)


def in_this_process(
    _: str,
    task: Callable[[int], Record],
    num_tasks: int,
    finished: Callable[[int, Record], None] | None = None,
) -> list[dict[str, Any]]:
    """``ray_runtime.map_tasks`` as a loop, for tests of what the tasks do and not of where they run."""
    records = []
    for number in range(num_tasks):
        records.append(dict(task(number)))
        if finished is not None:
            finished(number, records[-1])
    return records
