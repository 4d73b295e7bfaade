"""The job in DuckDB, one process."""

from __future__ import annotations

from pathlib import Path

import duckdb

from benchmarks.pairs import job


def start(cores: int) -> job.Engine:
    """The engine."""
    return run


def run(log: Path, output: Path, cores: int) -> None:
    """Do the job."""
    database = duckdb.connect(config={"threads": cores, "preserve_insertion_order": False})
    codes = " ".join(f"WHEN '{name}' THEN {code}" for code, name in enumerate(job.WEIGHTS))
    weights = " ".join(f"WHEN {code} THEN {weight}" for code, weight in enumerate(job.WEIGHTS.values()))
    names = ", ".join(f"'{name}'" for name in job.WEIGHTS)
    database.execute(
        f"""
        CREATE TABLE catalogue AS
        SELECT item_id, (row_number() OVER (ORDER BY item_id) - 1)::INTEGER AS item
        FROM read_parquet('{log}/items/*.parquet');

        CREATE TABLE users AS
        WITH events AS (
            SELECT DISTINCT user_id AS user, item, timestamp * 1000 AS time_ms,
                (CASE event_type {codes} END)::UTINYINT AS event
            FROM read_parquet('{log}/events/*.parquet') JOIN catalogue USING (item_id)
            WHERE user_id IS NOT NULL AND timestamp BETWEEN 1 AND {job.LATEST_S - 1} AND event_type IN ({names})
        ), sorted AS (
            SELECT user, list({{'t': time_ms, 'i': item, 'e': event}} ORDER BY time_ms, item, event) AS events
            FROM events GROUP BY user HAVING count(*) >= 2
        )
        SELECT user, len(events)::INTEGER AS size,
            list_transform(events, lambda e: e.i) AS items,
            list_transform(events, lambda e: (CASE e.e {weights} END)::FLOAT) AS weights,
            list_transform(events, lambda e: e.t) AS times_ms
        FROM sorted;
        """
    )
    parts = {
        "train": ("0", "CASE WHEN size >= 3 THEN size - 2 ELSE size END", "TRUE"),
        "val": ("size - 2", "size - 1", "size >= 3"),
        "test": ("size - 1", "size", "size >= 3"),
    }
    for part, (first, keep, chosen) in parts.items():
        (output / part).mkdir()
        database.execute(
            f"""
            COPY (
                SELECT user, ({first})::INTEGER AS first_target, items[1:{keep}] AS items,
                    weights[1:{keep}] AS weights, times_ms[1:{keep}] AS times_ms
                FROM users WHERE {chosen}
            ) TO '{output}/{part}/part.parquet' (FORMAT parquet, COMPRESSION zstd)
            """
        )
    keep = parts["train"][1]
    database.execute(
        f"""
        COPY (SELECT item, count(*) AS count FROM (SELECT unnest(items[1:{keep}]) AS item FROM users) GROUP BY item)
        TO '{output}/counts.parquet' (FORMAT parquet)
        """
    )


if __name__ == "__main__":
    job.main(start)
