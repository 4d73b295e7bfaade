"""The job in PySpark, local mode."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql import functions as f
from pyspark.sql.window import Window

from benchmarks.pairs import job

_FROM_ONE = 1


def start(cores: int) -> job.Engine:
    """The engine, its JVM warm."""
    os.environ["PYSPARK_PYTHON"] = sys.executable
    scratch = tempfile.mkdtemp(prefix="spark-")
    spark = (
        SparkSession.builder.master(f"local[{cores}]")
        .config("spark.driver.memory", "6g")
        .config("spark.sql.shuffle.partitions", str(4 * cores))
        .config("spark.sql.parquet.compression.codec", "zstd")
        .config("spark.local.dir", scratch)
        .config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    spark.range(1000).count()

    def run(log: Path, output: Path, cores: int) -> None:
        _run(spark, log, output)

    return run


def _run(spark: SparkSession, log: Path, output: Path) -> None:
    catalogue = spark.read.parquet(f"{log}/items").select("item_id")
    catalogue = catalogue.withColumn("item", (f.row_number().over(Window.orderBy("item_id")) - 1).cast("int"))
    code = f.create_map(
        *(f.lit(one) for pair in zip(job.WEIGHTS, range(len(job.WEIGHTS)), strict=True) for one in pair)
    )
    weight = f.array(*(f.lit(value).cast("float") for value in job.WEIGHTS.values()))
    events = (
        spark.read.parquet(f"{log}/events")
        .where(f.col("user_id").isNotNull() & f.col("timestamp").between(1, job.LATEST_S - 1))
        .where(f.col("event_type").isin(*job.WEIGHTS))
        .join(f.broadcast(catalogue), "item_id")
        .select(
            f.col("user_id").alias("user"),
            f.struct((f.col("timestamp") * 1000).alias("t"), "item", code[f.col("event_type")].alias("e")).alias(
                "event"
            ),
        )
    )
    users = (
        events.groupBy("user")
        .agg(f.array_sort(f.array_distinct(f.collect_list("event"))).alias("events"))
        .withColumn("size", f.size("events"))
        .where("size >= 2")
        .select(
            "user",
            "size",
            f.col("events.item").alias("items"),
            f.transform("events", lambda event: weight[event["e"]]).alias("weights"),
            f.col("events.t").alias("times_ms"),
            f.col("events.e").alias("events"),
        )
        .cache()
    )
    size = f.col("size")
    val_from, test_from = (f.when(size >= 3, size - held_out).otherwise(size) for held_out in (2, 1))
    chosen = users.withColumns({"val_from": val_from.cast("int"), "test_from": test_from.cast("int")}).drop("size")
    chosen.write.parquet(f"{output}/sequences")
    train = f.slice("items", _FROM_ONE, val_from)
    counts = users.select(f.explode(train).alias("item")).groupBy("item").count()
    counts.coalesce(1).write.parquet(f"{output}/counts.parquet")


if __name__ == "__main__":
    job.main(start)
