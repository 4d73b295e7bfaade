"""Every object of every overlay is what its schema allows, and a field that it does not know is refused."""

from __future__ import annotations

from typing import Any

import pytest

from tests.manifests import kuberay, schemas
from tests.manifests.builds import OVERLAYS, Manifest, built, cluster, the


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_of_an_overlay_is_of_its_schema(overlay: str) -> None:
    found = built(overlay)
    assert {one["kind"] for one in found} >= {"RayJob", "RayService", "CronJob", "NetworkPolicy", "PodDisruptionBudget"}
    assert {one["metadata"]["name"]: schemas.complaints(one) for one in found if schemas.complaints(one)} == {}


@pytest.mark.parametrize(
    ("kind", "name", "path", "key", "value"),
    [
        ("RayService", "raycl", ("spec",), "rayClusterConfigs", {}),
        ("RayService", "raycl", ("spec", "upgradeStrategy"), "kind", "NewCluster"),
        ("RayService", "raycl", ("CLUSTER", "workerGroupSpecs", 0), "minReplicas", "two"),
        ("RayService", "raycl", ("CLUSTER", "authOptions"), "mode", "password"),
        ("RayService", "raycl", ("CLUSTER", "gcsFaultToleranceOptions"), "redisadress", "redis:6379"),
        ("RayJob", "raycl-train", ("spec",), "suspend", "no"),
        ("RayJob", "raycl-train", ("spec",), "ttlSecondAfterFinished", 1),
        ("RayJob", "raycl-train", ("CLUSTER", "headGroupSpec", "template", "spec", "containers", 0), "images", "x"),
        ("RayJob", "raycl-train", ("spec", "submitterPodTemplate", "spec"), "restartpolicy", "Never"),
        ("CronJob", "raycl-nightly", ("spec",), "concurencyPolicy", "Forbid"),
        ("NetworkPolicy", "raycl-redis", ("spec",), "engress", []),
        ("PodDisruptionBudget", "raycl-serve", ("spec",), "maxUnavailable", {}),
        ("StatefulSet", "raycl-redis", ("spec", "template", "spec"), "securitycontext", {}),
        ("Role", "raycl-launch", ("rules", 0), "verb", ["get"]),
        ("PodMonitor", "raycl-ray", ("spec", "podMetricsEndpoints", 0), "intervall", "15s"),
        ("PrometheusRule", "raycl", ("spec",), "group", []),
        ("ClusterQueue", "raycl", ("spec",), "queueingStrategy", "FIFO"),
    ],
)
def test_a_fault_is_found_and_nothing_else(
    kind: str, name: str, path: tuple[str | int, ...], key: str, value: Any
) -> None:
    manifest = the("production-gpu", kind, name)
    inner: Manifest = manifest
    for step in path:
        inner = cluster(manifest) if step == "CLUSTER" else inner[step]  # type: ignore[index]
    inner[key] = value
    (complaint,) = schemas.complaints(manifest)
    assert key in complaint or repr(value) in complaint


def test_the_committed_extract_is_that_of_kuberays_definitions() -> None:
    crds = kuberay.folder() / "crds"
    assert kuberay.text(kuberay.extract(crds)) == kuberay.EXTRACT.read_text(encoding="utf-8")
