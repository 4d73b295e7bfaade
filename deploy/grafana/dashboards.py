"""The dashboards of raycl, as code: `python -m deploy.grafana.dashboards` writes the JSON files that Grafana reads.

A test holds the files equal to this, and every metric named here to what a running system has.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
_WIDTH, _HEIGHT = 12, 8
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True)
class Panel:
    """A graph: PromQL expressions, each with its legend, in one unit of Grafana."""

    title: str
    unit: str
    lines: Sequence[tuple[str, str]]
    told: str = ""


def _tasks(names: str) -> list[Panel]:
    """How far the tasks of some operators of Ray Data are."""
    of = f'operator=~".*Map\\\\(({names})\\\\).*"'
    return [
        Panel(
            "Tasks finished", "short", [(f"sum by (operator) (ray_data_num_tasks_finished{{{of}}})", "{{operator}}")]
        ),
        Panel("Tasks running", "short", [(f"sum by (operator) (ray_data_num_tasks_running{{{of}}})", "{{operator}}")]),
        Panel(
            "Tasks that failed",
            "short",
            [(f"sum by (operator) (ray_data_num_tasks_failed{{{of}}})", "{{operator}}")],
            "Each is tried again; a number that keeps rising is a node in trouble or too little memory.",
        ),
    ]


_NODES = [
    Panel("CPU of nodes", "percent", [("ray_node_cpu_utilization", "{{ip}} {{RayNodeType}}")]),
    Panel("Memory of nodes", "percentunit", [("ray_node_mem_used / ray_node_mem_total", "{{ip}} {{RayNodeType}}")]),
]
_OBJECTS = [
    Panel(
        "Object store",
        "bytes",
        [("sum by (Location) (ray_object_store_memory)", "{{Location}}")],
        "MMAP_SHM is memory. SPILLED and MMAP_DISK are on disk: give nodes more memory, or more nodes.",
    ),
    Panel(
        "Disks",
        "percentunit",
        [("ray_node_disk_usage / (ray_node_disk_usage + ray_node_disk_free)", "{{ip}} {{RayNodeType}}")],
        "From 0.95 on Ray spills nothing more.",
    ),
]

_DATA = [
    *_tasks("clean|build|conclude|core|count"),
    Panel("Memory of the largest processes", "decmbytes", [("topk(10, ray_component_rss_mb)", "{{Component}} {{ip}}")]),
    *_NODES,
    *_OBJECTS,
    Panel(
        "Network",
        "Bps",
        [("ray_node_network_receive_speed", "{{ip}} in"), ("ray_node_network_send_speed", "{{ip}} out")],
    ),
    Panel(
        "Disk traffic",
        "Bps",
        [("ray_node_disk_io_read_speed", "{{ip}} read"), ("ray_node_disk_io_write_speed", "{{ip}} written")],
    ),
]
_TRAINING = [
    Panel(
        "State of the run",
        "short",
        [
            (
                "max by (ray_train_run_name, ray_train_controller_state) (ray_train_controller_state) > 0",
                "{{ray_train_run_name}} {{ray_train_controller_state}}",
            )
        ],
        "SCHEDULING for long: no room for its workers. RESTARTING again and again: a worker that dies.",
    ),
    Panel(
        "Time in reports",
        "s",
        [("max by (ray_train_run_name) (ray_train_report_total_blocked_time_s)", "{{ray_train_run_name}}")],
        "Workers wait for one another here.",
    ),
    Panel(
        "Time to start workers",
        "s",
        [("max by (ray_train_run_name) (ray_train_worker_group_start_total_time_s)", "{{ray_train_run_name}}")],
    ),
    Panel(
        "Checkpoints",
        "s",
        [
            (
                "max by (ray_train_run_name) (ray_train_checkpoint_transfer_total_time_s)",
                "{{ray_train_run_name}} written",
            ),
            ("max by (ray_train_run_name) (ray_train_checkpoint_sync_total_time_s)", "{{ray_train_run_name}} awaited"),
        ],
    ),
    Panel(
        "Processes of training",
        "decmbytes",
        [('ray_component_rss_mb{Component=~"ray::.*Train.*"}', "{{Component}} {{ip}}")],
    ),
    *_NODES,
    Panel("Tasks that wait, by why", "short", [("sum by (Reason) (ray_scheduler_unscheduleable_tasks)", "{{Reason}}")]),
]
_INDEX = [
    *_tasks("embed|build_shard|exact|measure|time"),
    Panel(
        "Training, truth and verdict",
        "short",
        [
            (
                'sum by (Name) (ray_tasks{State="RUNNING", Name=~"train|draw_queries|merge_.*|conclude"})',
                "{{Name}}",
            )
        ],
        "Each is one task, on one node: its memory is that of the sample, or of all answers.",
    ),
    *_NODES,
    *_OBJECTS,
    Panel("Age of the release that answers", "s", [("min(ray_raycl_release_age_seconds)", "age")]),
]
_SERVING = [
    Panel(
        "Requests", "reqps", [("sum by (route, status) (rate(ray_raycl_requests_total[1m]))", "{{route}} {{status}}")]
    ),
    Panel(
        "Latency of retrieval",
        "s",
        [
            (
                f"histogram_quantile({share}, sum by (le)"
                ' (rate(ray_raycl_request_seconds_bucket{route="/v1/retrieve"}[5m])))',
                f"{share:.0%}",
            )
            for share in (0.5, 0.95, 0.99)
        ],
    ),
    Panel(
        "Where the time of a batch goes",
        "s",
        [
            (
                "sum by (phase) (rate(ray_raycl_phase_seconds_sum[5m]))"
                " / sum by (phase) (rate(ray_raycl_phase_seconds_count[5m]))",
                "{{phase}}",
            )
        ],
    ),
    Panel(
        "Queries in a batch",
        "short",
        [("sum(rate(ray_raycl_batch_queries_sum[5m])) / sum(rate(ray_raycl_batch_queries_count[5m]))", "mean")],
        "1 at a high rate: raise serving.batch_wait_ms.",
    ),
    Panel(
        "Answers by what they came from", "reqps", [("sum by (basis) (rate(ray_raycl_answers_total[1m]))", "{{basis}}")]
    ),
    Panel(
        "Answers that lack something",
        "reqps",
        [
            ("sum(rate(ray_raycl_short_answers_total[5m]))", "short"),
            ("sum by (what) (rate(ray_raycl_degraded_answers_total[5m]))", "degraded: {{what}}"),
        ],
    ),
    Panel(
        "Requests turned away or too late",
        "reqps",
        [
            ("sum by (why) (rate(ray_raycl_shed_requests_total[5m]))", "turned away: {{why}}"),
            ("sum(rate(ray_raycl_late_requests_total[5m]))", "late"),
        ],
    ),
    Panel(
        "Releases",
        "s",
        [("min(ray_raycl_release_age_seconds)", "youngest"), ("max(ray_raycl_release_age_seconds)", "oldest")],
        "Apart for longer than serving.poll_s and a swap: a replica does not take the newest.",
    ),
    Panel(
        "Swaps",
        "short",
        [
            ("sum(increase(ray_raycl_swaps_total[1h]))", "taken over"),
            ("sum(increase(ray_raycl_swap_failures_total[1h]))", "failed"),
            ("max(ray_raycl_release_stale)", "stale"),
        ],
    ),
    Panel(
        "Time of a swap",
        "s",
        [("histogram_quantile(0.9, sum by (le) (rate(ray_raycl_swap_seconds_bucket[1h])))", "90 %")],
    ),
    Panel(
        "Replicas",
        "short",
        [
            ("sum by (deployment) (ray_serve_deployment_replica_healthy)", "{{deployment}} well"),
            ("max by (deployment) (ray_serve_autoscaling_target_replicas)", "{{deployment}} wanted"),
        ],
    ),
    Panel(
        "Requests under way",
        "short",
        [
            ("sum by (deployment) (ray_serve_replica_processing_queries)", "{{deployment}} in replicas"),
            ("sum by (deployment) (ray_serve_deployment_queued_queries)", "{{deployment}} waiting"),
        ],
    ),
    Panel("Users whose fresh events are remembered", "short", [("sum(ray_raycl_session_users)", "users")]),
    *_NODES,
]

DASHBOARDS = {
    "data": ("raycl: logs to pairs", _DATA),
    "training": ("raycl: towers", _TRAINING),
    "index": ("raycl: index", _INDEX),
    "serving": ("raycl: service", _SERVING),
}
"""By the name of its file: title and panels."""


def built(name: str) -> dict[str, Any]:
    """The dashboard as Grafana reads it."""
    title, panels = DASHBOARDS[name]
    return {
        "uid": f"raycl-{name}",
        "title": title,
        "tags": ["raycl"],
        "editable": False,
        "refresh": "30s",
        "schemaVersion": 39,
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [{"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}]
        },
        "panels": [_panel(number, panel) for number, panel in enumerate(panels)],
    }


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.told,
        "datasource": _SOURCE,
        "gridPos": {"h": _HEIGHT, "w": _WIDTH, "x": number % 2 * _WIDTH, "y": number // 2 * _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + place), "datasource": _SOURCE, "expr": expr, "legendFormat": legend}
            for place, (expr, legend) in enumerate(panel.lines)
        ],
    }


def text(name: str) -> str:
    """The dashboard's file."""
    return json.dumps(built(name), indent=1) + "\n"


if __name__ == "__main__":
    for name in DASHBOARDS:
        (FOLDER / f"{name}.json").write_text(text(name), encoding="utf-8")
