"""The alert rules: each fires, names only metrics that there are, and is told of in the guide."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.alerts import metrics, promql
from tests.alerts.cases import CASES, Series
from tests.alerts.promql import Data

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy" / "prometheus" / "rules.yaml"
OF_KUBERNETES = {
    "kube_job_status_failed",
    "kube_job_created",
    "kube_job_status_start_time",
    "kube_job_status_active",
    "kube_cronjob_status_last_successful_time",
}
"""What kube-state-metrics tells, and no cluster of Ray."""


def groups() -> list[dict[str, Any]]:
    """The groups of the rules file."""
    return list(yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"])


def alerts() -> dict[str, dict[str, Any]]:
    """Every alert by its name."""
    found = [rule for group in groups() for rule in group["rules"]]
    assert len({rule["alert"] for rule in found}) == len(found)
    return {rule["alert"]: rule for rule in found}


@pytest.fixture(scope="module")
def promtool() -> str:
    """Prometheus's own tool; the test is skipped where it is absent."""
    found = shutil.which(os.environ.get("RAYCL_PROMTOOL", "promtool"))
    if found is None:
        pytest.skip("needs promtool, on the PATH or named in RAYCL_PROMTOOL")
    return found


def _case(series: Series, alert: str, at_m: int, expected: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [{"eval_time": f"{at_m}m", "alertname": alert, "exp_alerts": expected}],
    }


@pytest.mark.parametrize("alert", sorted(alerts()))
def test_the_alert_is_raised_where_it_should_and_only_there(alert: str) -> None:
    case, rule = CASES[alert], alerts()[alert]
    fires, quiet = Data.of(case.fires), Data.of(case.quiet)
    raised = promql.firing(rule["expr"], rule["for"], fires, case.after_m)
    assert raised == {frozenset(case.labels.items())}
    assert promql.firing(rule["expr"], rule["for"], fires, 0) == set()
    assert promql.firing(rule["expr"], rule["for"], quiet, case.after_m) == set()


@pytest.mark.parametrize("alert", sorted(alerts()))
def test_prometheus_raises_the_alert_where_it_should_and_only_there(promtool: str, alert: str, tmp_path: Path) -> None:
    case, rule = CASES[alert], alerts()[alert]
    told = {"exp_labels": {**case.labels, **rule["labels"]}, "exp_annotations": {"summary": case.summary}}
    tests = [_case(case.fires, alert, case.after_m, [told])]
    tests += [_case(case.fires, alert, 0, []), _case(case.quiet, alert, case.after_m, [])]
    file = tmp_path / "tests.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    ended = subprocess.run([promtool, "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_prometheus_takes_the_rules(promtool: str) -> None:
    ended = subprocess.run([promtool, "check", "rules", str(RULES)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_every_alert_has_its_case_its_urgency_and_its_lines_in_the_guide() -> None:
    assert CASES.keys() == alerts().keys()
    guide = (ROOT / "deploy" / "README.md").read_text(encoding="utf-8")
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule.keys() == {"alert", "expr", "for", "labels", "annotations"}
        row = re.search(rf"^\| `{name}` \| (page|ticket) \| .{{20,}} \| .{{20,}} \|$", guide, re.MULTILINE)
        assert row, f"deploy/README.md does not say what {name} means and what to do"
        assert row[1] == rule["labels"]["severity"]


def test_every_metric_of_an_alert_was_seen_in_a_running_system() -> None:
    for name, rule in alerts().items():
        named = metrics.named(rule["expr"])
        assert named, name
        assert named - OF_KUBERNETES <= metrics.seen(), name


def test_the_operators_rules_are_those_of_the_file() -> None:
    manifest = yaml.safe_load((ROOT / "k8s" / "base" / "rules.yaml").read_text(encoding="utf-8"))
    assert manifest["spec"]["groups"] == groups()
