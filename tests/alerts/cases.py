"""Of each alert: series that make it fire, with what it then says, and series that do not.

A series is the name of a metric with its labels, and its values a minute, in the notation of ``promtool test rules``:
``1+2x10`` is 1, 3, ... in 11 values, and ``_`` none.
"""

from __future__ import annotations

from dataclasses import dataclass, field

Series = dict[str, str]


@dataclass(frozen=True)
class Case:
    """One alert: by ``after_m`` minutes ``fires`` has made it fire, and ``quiet`` has not."""

    fires: Series
    quiet: Series
    summary: str
    after_m: int
    labels: dict[str, str] = field(default_factory=dict)


def _requests(ok: int, failed: int, status: str = "500") -> Series:
    return {
        'ray_raycl_requests_total{route="/v1/retrieve", status="200"}': f"0+{ok}x40",
        f'ray_raycl_requests_total{{route="/v1/retrieve", status="{status}"}}': f"0+{failed}x40",
    }


def _latencies(fast: int, slow: int) -> Series:
    bucket = 'ray_raycl_request_seconds_bucket{route="/v1/retrieve", le="%s"}'
    return {
        bucket % "0.1": f"0+{fast}x40",
        bucket % "0.5": f"0+{fast}x40",
        bucket % "1": f"0+{fast + slow}x40",
        bucket % "+Inf": f"0+{fast + slow}x40",
    }


def _degraded(answers: int, degraded: int) -> Series:
    return {
        'ray_raycl_answers_total{basis="history"}': f"0+{answers}x60",
        'ray_raycl_degraded_answers_total{what="diversity"}': f"0+{degraded}x60",
    }


def _node(used: str, total: str, value: float, whole: int) -> Series:
    return {f'{used}{{ip="10.0.0.1"}}': f"{value}x40", f'{total}{{ip="10.0.0.1"}}': f"{whole}x40"}


_REPLICA = 'ray_serve_deployment_replica_healthy{application="raycl", deployment="Retrieval", replica="r1"}'
_STATE = 'ray_train_controller_state{ray_train_run_name="towers", ray_train_controller_state="%s"}'
_JOB = '{namespace="raycl", job_name="raycl-nightly-29900000"}'
_NIGHT = {"namespace": "raycl", "job_name": "raycl-nightly-29900000"}
_CRON = 'kube_cronjob_status_last_successful_time{namespace="raycl", cronjob="raycl-nightly"}'

CASES = {
    "RayclSilent": Case(
        {"ray_raycl_release_age_seconds": "100+60x5 stale"},
        {"ray_raycl_release_age_seconds": "100+60x40"},
        "No replica of the service tells of itself",
        10,
    ),
    "RayclErrors": Case(_requests(980, 20), _requests(995, 5), "2% of requests fail", 20),
    "RayclSlow": Case(_latencies(980, 20), _latencies(999, 1), "One request in a hundred takes more than 750ms", 30),
    "RayclSheds": Case(
        {'ray_raycl_shed_requests_total{why="rate"}': "0+60x40"},
        {'ray_raycl_shed_requests_total{why="rate"}': "0+3x40"},
        "1 requests a second are turned away: rate",
        20,
        {"why": "rate"},
    ),
    "RayclDegrades": Case(_degraded(100, 10), _degraded(100, 4), "10% of answers lack something for want of time", 45),
    "RayclReleaseStale": Case(
        {'ray_raycl_release_stale{WorkerId="a"}': "0x50", 'ray_raycl_release_stale{WorkerId="b"}': "0x5 1x45"},
        {'ray_raycl_release_stale{WorkerId="a"}': "0x5 1x10 0x35"},
        "A published release is not taken up",
        45,
    ),
    "RayclReleaseOld": Case(
        {'ray_raycl_release_age_seconds{WorkerId="a"}': "173000+60x40"},
        {
            'ray_raycl_release_age_seconds{WorkerId="a"}': "173000+60x40",
            'ray_raycl_release_age_seconds{WorkerId="b"}': "100+60x40",
        },
        "The newest release that answers is 2d 0h 33m 20s old",
        30,
    ),
    "RayclReplicaIll": Case(
        {_REPLICA: "1x5 0x40"},
        {_REPLICA: "1x5 0x5 1x40"},
        "Replica r1 of Retrieval does not get well",
        20,
        {"application": "raycl", "deployment": "Retrieval", "replica": "r1"},
    ),
    "RayclDeployFails": Case(
        {'ray_serve_application_status{application="raycl"}': "6x5 1x30"},
        {'ray_serve_application_status{application="raycl"}': "6x5 5x30"},
        "Serve cannot bring raycl up",
        15,
        {"application": "raycl"},
    ),
    "RayclNightFailed": Case(
        {f"kube_job_status_failed{_JOB}": "0x5 1x30", f"kube_job_created{_JOB}": "0x40"},
        {f"kube_job_status_failed{_JOB}": "0x5 1x30", f"kube_job_created{_JOB}": "-90000x40"},
        "Night raycl-nightly-29900000 failed",
        10,
        _NIGHT,
    ),
    "RayclNightMissing": Case(
        {_CRON: "-109000x40"}, {_CRON: "-3600x40"}, "No night ended well for 1d 6h 26m 40s", 10, {"namespace": "raycl"}
    ),
    "RayclNightLong": Case(
        {f"kube_job_status_start_time{_JOB}": "-15000x40", f"kube_job_status_active{_JOB}": "1x40"},
        {f"kube_job_status_start_time{_JOB}": "-15000x40", f"kube_job_status_active{_JOB}": "0x40"},
        "Night raycl-nightly-29900000 has been running for 4h 20m 0s",
        10,
        _NIGHT,
    ),
    "RayclTrainingStuck": Case(
        {_STATE % "RUNNING": "0x40", _STATE % "RESTARTING": "1x40"},
        {_STATE % "RUNNING": "1x40", _STATE % "RESTARTING": "1x5 0x35"},
        "Training towers finds no workers",
        30,
        {"ray_train_run_name": "towers"},
    ),
    "RayclTasksInfeasible": Case(
        {'ray_scheduler_unscheduleable_tasks{Reason="Infeasible"}': "3x40"},
        {'ray_scheduler_unscheduleable_tasks{Reason="WaitingForResources"}': "3x40"},
        "3 tasks ask for more than any node has",
        20,
    ),
    "RayclMemoryHigh": Case(
        _node("ray_node_mem_used", "ray_node_mem_total", 95, 100),
        _node("ray_node_mem_used", "ray_node_mem_total", 90, 100),
        "Node 10.0.0.1 uses 95% of its memory",
        10,
        {"ip": "10.0.0.1"},
    ),
    "RayclDiskFull": Case(
        _node("ray_node_disk_usage", "ray_node_disk_free", 90, 10),
        _node("ray_node_disk_usage", "ray_node_disk_free", 80, 20),
        "The disk of node 10.0.0.1 is 90% full",
        10,
        {"ip": "10.0.0.1"},
    ),
    "RayclObjectStoreFull": Case(
        {'ray_object_store_memory{Location="MMAP_DISK", ObjectState="SEALED", NodeAddress="10.0.0.1"}': "2097152x40"},
        {'ray_object_store_memory{Location="MMAP_SHM", ObjectState="SEALED", NodeAddress="10.0.0.1"}': "2097152x40"},
        "The object store of node 10.0.0.1 overflows by 2MiB",
        10,
        {"NodeAddress": "10.0.0.1"},
    ),
}
