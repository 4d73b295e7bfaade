"""KubeRay and Kueue take every RayJob and RayService, and the copies that `raycl launch` makes of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from raycl.kubernetes import rayjob
from raycl.kubernetes.rayjob import KUEUE_LABEL
from tests.manifests import builds, schemas
from tests.manifests.builds import OVERLAYS, Manifest, cluster, cpus, groups, of_kind, resource_bytes, the
from tests.manifests.operator_rules import refusals

NOW = datetime(2026, 11, 21, 2, 0, tzinfo=UTC)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_operator_takes_every_job_and_service(overlay: str) -> None:
    found = [*of_kind(overlay, "RayJob"), *of_kind(overlay, "RayService")]
    assert len(found) == 8
    assert {one["metadata"]["name"]: refusals(one) for one in found if refusals(one)} == {}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_copies_that_run_are_taken_by_schema_operator_and_kueue(overlay: str) -> None:
    for template in of_kind(overlay, "RayJob"):
        run = rayjob.copy_of(template, rayjob.run_name(template["metadata"]["name"], NOW))
        assert refusals(run) == []
        assert schemas.complaints(run) == []
        assert (KUEUE_LABEL in run["metadata"]["labels"]) == (overlay == "production-gpu")


def _set(*path: str | int, to: object) -> Callable[[Manifest], None]:
    def change(manifest: Manifest) -> None:
        inner: Manifest = cluster(manifest) if path[0] == "CLUSTER" else manifest
        for step in path[1:-1] if path[0] == "CLUSTER" else path[:-1]:
            inner = inner[step]  # type: ignore[index]
        inner[path[-1]] = to  # type: ignore[index]

    return change


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        (_set("metadata", "name", to="raycl-" + "n" * 42), "DNS-1035"),
        (_set("metadata", "name", to="Raycl"), "DNS-1035"),
        (_set("spec", "submissionMode", to="K8SJobMode"), "submissionMode"),
        (_set("spec", "shutdownAfterJobFinishes", to=False), "without shutdownAfterJobFinishes"),
        (_set("spec", "deletionStrategy", to={"deletionRules": [{}]}), "deletionRules"),
        (_set("spec", "deletionStrategy", to={}), "empty"),
        (_set("spec", "submissionMode", to="SidecarMode"), "SidecarMode"),
        (_set("spec", "submissionMode", to="InteractiveMode"), "InteractiveMode"),
        (_set("spec", "activeDeadlineSeconds", to=0), "activeDeadlineSeconds"),
        (_set("spec", "backoffLimit", to=-1), "negative"),
        (_set("spec", "runtimeEnvYAML", to="[]"), "no mapping"),
        (_set("spec", "clusterSelector", to={"a": "b"}), "clusterSelector"),
        (_set("CLUSTER", "rayVersion", to=""), "no tokens"),
        (_set("CLUSTER", "rayVersion", to="2.51.0"), "no tokens"),
        (_set("CLUSTER", "headGroupSpec", "resources", to={"CPU": "1"}), "resources both"),
        (_set("CLUSTER", "headGroupSpec", "rayStartParams", "labels", to="a=b"), "rayStartParams.labels"),
        (_set("CLUSTER", "workerGroupSpecs", 0, "template", "spec", "containers", to=[]), "no image"),
        (_set("CLUSTER", "workerGroupSpecs", 1, "groupName", to="cpu"), "distinct"),
        (_set("CLUSTER", "workerGroupSpecs", 1, "groupName", to="head"), "called head"),
        (_set("CLUSTER", "enableInTreeAutoscaling", to=True), "Kueue: autoscaling"),
    ],
)
def test_what_the_operator_or_kueue_would_refuse_is_found(change: Callable[[Manifest], None], refusal: str) -> None:
    manifest = the("production-gpu", "RayJob", "raycl-train")
    manifest["metadata"]["labels"][KUEUE_LABEL] = "raycl"
    cluster(manifest)["autoscalerOptions"] = {"version": "v2"}
    assert refusals(manifest) == []
    change(manifest)
    assert any(refusal in line for line in refusals(manifest)), refusals(manifest)


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        (_set("spec", "upgradeStrategy", "type", to="Rolling"), "upgradeStrategy"),
        (_set("spec", "upgradeStrategy", "type", to="NewClusterWithIncrementalUpgrade"), "incremental"),
        (_set("metadata", "annotations", "ray.io/initializing-timeout", to="soon"), "initializing-timeout"),
        (_set("CLUSTER", "workerGroupSpecs", 0, "template", "spec", "restartPolicy", to="Always"), "restartPolicy"),
        (_set("CLUSTER", "headGroupSpec", "rayStartParams", "redis-password", to="x"), "beside gcsFault"),
        (_set("CLUSTER", "authOptions", "enableK8sTokenAuth", to=True), "enableK8sTokenAuth"),
        (_set("CLUSTER", "workerGroupSpecs", 0, "suspend", to=True), "suspended"),
    ],
)
def test_what_the_operator_would_refuse_in_a_service_is_found(change: Callable[[Manifest], None], refusal: str) -> None:
    manifest = the("production-gpu", "RayService", "raycl")
    change(manifest)
    assert any(refusal in line for line in refusals(manifest)), refusals(manifest)


def test_kueue_has_quota_for_a_night_and_the_largest_job_at_once() -> None:
    (queue,) = of_kind("production-gpu", "ClusterQueue")
    (group,) = queue["spec"]["resourceGroups"]
    quota = {one["name"]: one["nominalQuota"] for one in group["flavors"][0]["resources"]}
    assert set(quota) == set(group["coveredResources"])
    asked: dict[str, float] = dict.fromkeys(quota, 0.0)
    for name in ("raycl-nightly", "raycl-train"):
        manifest = the("production-gpu", "RayJob", name)
        pods = [(one.get("replicas", 1), one["template"]) for one in groups(manifest)]
        for number, template in [*pods, (1, manifest["spec"]["submitterPodTemplate"])]:
            for resource, quantity in template["spec"]["containers"][0]["resources"]["requests"].items():
                asked[resource] += number * _amount(resource, quantity)
    assert all(asked[resource] <= _amount(resource, quantity) for resource, quantity in quota.items()), asked


def _amount(resource: str, quantity: str) -> float:
    return resource_bytes(quantity) if resource in ("memory", "ephemeral-storage") else cpus(quantity)


def test_the_queue_that_templates_name_is_there() -> None:
    names = {one["metadata"]["name"] for one in of_kind("production-gpu", "LocalQueue")}
    for template in of_kind("production-gpu", "RayJob"):
        assert template["metadata"]["annotations"][rayjob.QUEUE] in names
    assert {builds.of_kind(overlay, "LocalQueue") == [] for overlay in ("laptop", "staging")} == {True}
