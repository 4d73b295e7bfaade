"""The files of a finished search, and what a person is shown of them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import polars as pl

from raycl.errors import InputError
from raycl.storage.store import Store
from raycl.storage.versions import Version

TRIALS_FILE, CURVES_FILE, FIELDS_FILE, BEST_FILE = "trials.parquet", "curves.parquet", "fields.parquet", "best.yaml"

_SHOWN_TRIALS = 20


def write(store: Store, path: str, table: pl.DataFrame) -> None:
    """Write one of the tables."""
    content = io.BytesIO()
    table.write_parquet(content)
    store.write(path, content.getvalue())


def read(version: Version, path: str) -> pl.DataFrame:
    """One of the tables of a finished search; CorruptRelease where it was altered."""
    return pl.read_parquet(io.BytesIO(version.verified(path).store.read(path)))


def trials(version: Version) -> list[dict[str, Any]]:
    """The best trials, with what tells them apart; all of them are in the file."""
    table = read(version, TRIALS_FILE).drop("towers", "seconds", "reason").head(_SHOWN_TRIALS)
    if table["deviation"].null_count() == table.height:
        table = table.drop("deviation")
    return _rows(table)


def fields(version: Version) -> list[dict[str, Any]]:
    """What each field mattered, as ``summary.fields`` tells it."""
    return _rows(read(version, FIELDS_FILE))


def write_best(version: Version, path: Path | None) -> str:
    """Where the best config is: in ``path``, once it is written there, or in the version."""
    if path is None:
        return f"{version.store.uri}/{BEST_FILE}"
    content = version.verified(BEST_FILE).store.read(BEST_FILE)
    try:
        path.write_bytes(content)
    except OSError as error:
        raise InputError(f"--best {path} cannot be written: {error.strerror}; check the folder") from error
    return str(path)


def _rows(table: pl.DataFrame) -> list[dict[str, Any]]:
    return [{name: "" if value is None else value for name, value in row.items()} for row in table.to_dicts()]
