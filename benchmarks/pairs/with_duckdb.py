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
            list_transform(events, lambda e: e.t) AS times_ms,
            list_transform(events, lambda e: e.e) AS events
        FROM sorted;
        """
    )
    (output / "sequences").mkdir()
    database.execute(
        f"""
        COPY (
            SELECT user, (size - CASE WHEN size >= 3 THEN 2 ELSE 0 END)::INTEGER AS val_from,
                (size - CASE WHEN size >= 3 THEN 1 ELSE 0 END)::INTEGER AS test_from, items, weights, times_ms, events
            FROM users
        ) TO '{output}/sequences/part.parquet' (FORMAT parquet, COMPRESSION zstd);

        COPY (
            SELECT item, count(*) AS count
            FROM (SELECT unnest(items[1:size - CASE WHEN size >= 3 THEN 2 ELSE 0 END]) AS item FROM users)
            GROUP BY item
        ) TO '{output}/counts.parquet' (FORMAT parquet);
        """
    )


if __name__ == "__main__":
    job.main(start)
