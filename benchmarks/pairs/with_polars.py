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
        .agg(items="row", weights=weight, times_ms="time_ms", size=pl.len())
        .filter(pl.col("size") >= 2)
        .collect(engine="streaming")
    )
    held = pl.when(pl.col("size") >= 3).then(2).otherwise(0)
    keep = {"train": pl.col("size") - held, "val": pl.col("size") - 1, "test": pl.col("size")}
    first = {"train": pl.lit(0), "val": pl.col("size") - 2, "test": pl.col("size") - 1}
    for part in job.PARTS:
        of_part = users if part == "train" else users.filter(pl.col("size") >= 3)
        lists = [pl.col(name).list.head(keep[part]) for name in ("items", "weights", "times_ms")]
        (output / part).mkdir()
        of_part.select("user", first[part].cast(pl.Int32).alias("first_target"), *lists).write_parquet(
            output / part / "part.parquet", compression="zstd"
        )
    train = users.select(items=pl.col("items").list.head(keep["train"]))
    counts = train.explode("items").group_by(item="items").agg(count=pl.len().cast(pl.Int64))
    counts.write_parquet(output / "counts.parquet")


if __name__ == "__main__":
    job.main(start)
