"""The item table with more columns: which parts it is cut into, and what one task makes of its parts."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from raycl.config import ItemTable
from raycl.config_encode import Encoding
from raycl.data import footers, sources
from raycl.data.columns import whole
from raycl.data.hashing import mix
from raycl.data.sources import Fragment, Source
from raycl.storage import tables
from raycl.storage.store import Store
from raycl.text.encoders import Encode

STAGE = "encodings"
FOLDER = "items"
ROWS_PER_PART = 2_048
"""So much is lost of what a killed run did."""
_ROWS_PER_TASK = 200_000


@dataclass(frozen=True)
class Work:
    """What every task needs to know."""

    items: ItemTable
    columns: tuple[str, ...]
    """Of the table, all that are read of it."""
    fragments: tuple[Fragment, ...]
    store_uri: str
    """Of the version that is made."""


def of(items: ItemTable, source: Source, store_uri: str) -> Work:
    """The tasks for this item table."""
    columns = tuple(dict.fromkeys([*source.types]))
    return Work(items, columns, tuple(sources.fragments((source,), _ROWS_PER_TASK)), store_uri)


def part_file(task: int, part: int) -> str:
    """Path of one part of the new table."""
    return f"{FOLDER}/part-{task:06d}-{part:06d}.parquet"


def encode_fragment(work: Work, encoders: Sequence[Encode], number: int) -> dict[str, Any]:
    """Write the parts of one fragment that are not there yet; the record counts rows, and those without a vector."""
    fragment, store = work.fragments[number], Store(work.store_uri)
    read = footers.read_groups(
        Store(fragment.root_uri), "items", fragment.path, list(work.columns), fragment.groups, fragment.given
    )
    done = set(store.names(FOLDER))
    missing = {chosen.column: 0 for chosen in work.items.encode}
    for part, first in enumerate(range(0, read.num_rows, ROWS_PER_PART)):
        path = part_file(number, part)
        if path.rpartition("/")[2] in done:
            table = tables.read(store, path, list(missing))
        else:
            table = with_vectors(read.slice(first, ROWS_PER_PART), work.items.encode, encoders)
            tables.write(store, path, table)
        for column in missing:
            missing[column] += table[column].null_count
    return {"rows": read.num_rows, "missing": missing}


def with_vectors(table: pa.Table, chosen: Sequence[Encoding], encoders: Sequence[Encode]) -> pa.Table:
    """The table with a column of vectors for each encoding, null where a row has no words or is to have none."""
    for encoding, encode in zip(chosen, encoders, strict=True):
        words = texts(table, encoding.of)
        wanted = np.array([bool(text) and not left_out(text, encoding) for text in words], dtype=np.bool_)
        found = encode([text for text, kept in zip(words, wanted, strict=True) if kept]) if wanted.any() else None
        rows: list[Any] = [None] * len(words)
        for place, vector in zip(np.flatnonzero(wanted), () if found is None else found, strict=True):
            rows[place] = vector
        table = table.append_column(encoding.column, pa.array(rows, pa.list_(pa.float32())))
    return table


def texts(table: pa.Table, columns: Sequence[str]) -> list[str]:
    """The words of each row: its columns one after the other, lists with commas; empty where there are none."""
    parts = [[_words(value) for value in whole(table[name]).to_pylist()] for name in columns]
    return [". ".join(word for word in row if word) for row in zip(*parts, strict=True)]


def left_out(text: str, encoding: Encoding) -> bool:
    """Whether this row is of the share that is to have no vector: by its words and the name of the column."""
    if not encoding.missing:
        return False
    drawn = mix(np.array([zlib.crc32(json.dumps([encoding.column, text]).encode())], dtype=np.uint64))
    return bool((drawn[0] >> np.uint64(11)) * 2.0**-53 < encoding.missing)


def _words(value: Any) -> str:
    if value is None:
        return ""
    found = ", ".join(str(one) for one in value) if isinstance(value, list) else str(value)
    return found.strip()
