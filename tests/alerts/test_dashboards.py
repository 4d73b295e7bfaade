"""The dashboards: the files are those of the code, and every panel names what a running system has."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.grafana.dashboards import DASHBOARDS, FOLDER, text
from tests.alerts import metrics


def expressions() -> Iterator[tuple[str, str]]:
    """Every expression of every dashboard, and where it is."""
    for name, (_, panels) in DASHBOARDS.items():
        for panel in panels:
            for expression, _ in panel.lines:
                yield f"{name}: {panel.title}", expression


def test_the_files_are_those_of_the_code() -> None:
    assert (
        {path.stem for path in FOLDER.glob("*.json")} == DASHBOARDS.keys() == {"data", "training", "index", "serving"}
    )
    for name in DASHBOARDS:
        assert (FOLDER / f"{name}.json").read_text(encoding="utf-8") == text(name), name


def test_every_panel_names_metrics_that_were_seen_in_a_running_system() -> None:
    for where, expression in expressions():
        named = metrics.named(expression)
        assert named, where
        assert named <= metrics.seen(), where


def test_names_and_places_are_distinct_and_no_panel_lies_on_another() -> None:
    for name in DASHBOARDS:
        tree = json.loads(text(name))
        places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in tree["panels"]}
        titles = {panel["title"] for panel in tree["panels"]}
        assert len(places) == len(titles) == len(tree["panels"])


def test_prometheus_takes_every_expression(tmp_path: Path) -> None:
    promtool = shutil.which(os.environ.get("RAYCL_PROMTOOL", "promtool"))
    if promtool is None:
        pytest.skip("needs promtool, on the PATH or named in RAYCL_PROMTOOL")
    rules = [{"record": f"panel:{number}", "expr": one} for number, (_, one) in enumerate(expressions())]
    file = tmp_path / "rules.yaml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}), encoding="utf-8")
    ended = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ('sum by (ray_a) (rate(ray_b_total{ray_c="ray_d"}[5m]))', {"ray_b_total"}),
        ('time() - kube_e{job=~"ray_f.*"} and on (ray_g) process_h > 0', {"kube_e", "process_h"}),
    ],
)
def test_labels_are_no_metrics(expression: str, found: set[str]) -> None:
    assert metrics.named(expression) == found
