"""The job in Polars, one process: its streaming engine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("POLARS_MAX_THREADS", sys.argv[3] if len(sys.argv) > 3 else "1")

import polars as pl

from benchmarks.pairs import job


def start(cores: int) -> job.Engine:
    """The engine; Polars takes its threads from the environment when it is imported."""
    return run


def run(log: Path, output: Path, cores: int) -> None:
    """Do the job."""
    catalogue = (
        pl.scan_parquet(log / "items" / "*.parquet")
        .select(item_id="item_id")
        .sort("item_id")
        .with_row_index("row")
        .with_columns(pl.col("row").cast(pl.Int32))
    )
    events = pl.scan_parquet(log / "events" / "*.parquet").filter(
        pl.col("user_id").is_not_null()
        & pl.col("timestamp").is_between(1, job.LATEST_S - 1)
        & pl.col("event_type").is_in(list(job.WEIGHTS))
    )
    code = pl.col("event_type").replace_strict({name: i for i, name in enumerate(job.WEIGHTS)}, return_dtype=pl.UInt8)
    rows = (
        events.join(catalogue, on="item_id", how="inner")
        .select("row", user="user_id", time_ms=pl.col("timestamp") * 1000, event=code)
        .unique()
    )
    weight = pl.col("event").replace_strict(dict(enumerate(job.WEIGHTS.values())), return_dtype=pl.Float32)
    order = ["time_ms", "row", "event"]
    users = (
        rows.sort("user", *order)
        .group_by("user", maintain_order=True)
        .agg(items="row", weights=weight, times_ms="time_ms", events="event", size=pl.len().cast(pl.Int32))
        .filter(pl.col("size") >= 2)
        .collect(engine="streaming")
    )
    held_out = pl.col("size") >= 3
    users = users.with_columns(
        val_from=pl.col("size") - pl.when(held_out).then(2).otherwise(0),
        test_from=pl.col("size") - pl.when(held_out).then(1).otherwise(0),
    )
    (output / "sequences").mkdir()
    users.drop("size").write_parquet(output / "sequences" / "part.parquet", compression="zstd")
    train = users.select(items=pl.col("items").list.head(pl.col("val_from")))
    counts = train.explode("items").group_by(item="items").agg(count=pl.len().cast(pl.Int64))
    counts.write_parquet(output / "counts.parquet")


if __name__ == "__main__":
    job.main(start)
