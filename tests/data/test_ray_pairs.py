"""The pairs stage on an embedded Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raycl import journey, ray_runtime
from raycl.data import ray_pairs
from raycl.errors import InputError
from tests.data import whole


@pytest.mark.parametrize(
    ("rules", "context"),
    [
        ({}, []),
        ({"core_rounds": 9, "min_item_events": 18, "min_user_events": 10}, []),
        ({"negative_events": ["hover"], "negative_below": 0.75}, ["device", "place"]),
    ],
)
def test_ray_makes_the_rows_of_the_whole_log_built_at_once(
    ray_local: None, tmp_path: Path, rules: dict[str, Any], context: list[str]
) -> None:
    whole.write_log(tmp_path)
    columns = {"user": "who", "item": "what", "time": "when", "event": "how", "weight": "much", "context": context}
    config = whole.config(tmp_path, rules, logs=[{"uri": str(tmp_path / "log"), "columns": columns}])
    outcome = journey.pairs(config)
    assert outcome.worked
    assert whole.found(outcome.version) == whole.truth(config)
    counts = outcome.version.manifest.counts
    assert counts["rows_in"] == counts["events"] + sum(outcome.version.manifest.dropped.values())
    again = journey.pairs(config)
    assert (again.version.name, again.worked) == (outcome.version.name, False)


def test_a_run_killed_on_ray_goes_on_to_identical_files(
    ray_local: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole.write_log(tmp_path)
    config = whole.config(tmp_path)
    map_tasks = ray_runtime.map_tasks

    def until_killed(name: str, task: Any, num_tasks: int, finished: Any = None) -> list[dict[str, Any]]:
        found = map_tasks(name, task, 1 if name == "build" else num_tasks, finished)
        if name == "build":
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(ray_runtime, "map_tasks", until_killed)
    with pytest.raises(KeyboardInterrupt):
        ray_pairs.run(config, journey.workspace(config))
    monkeypatch.setattr(ray_runtime, "map_tasks", map_tasks)
    resumed, _ = ray_pairs.run(config, journey.workspace(config))
    forced, worked = ray_pairs.run(config, journey.workspace(config), force=True)
    assert worked
    assert journey.workspace(config).finished("pairs") == [resumed.name, forced.name]
    assert resumed.manifest.checksums == forced.manifest.checksums


def test_a_file_that_is_damaged_is_refused_from_a_task_by_name(ray_local: None, tmp_path: Path) -> None:
    whole.write_log(tmp_path)
    path = tmp_path / "log" / "part-001.parquet"
    content = bytearray(path.read_bytes())
    content[4:200] = b"\xff" * 196
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"part-001\.parquet is damaged"):
        journey.pairs(whole.config(tmp_path))
