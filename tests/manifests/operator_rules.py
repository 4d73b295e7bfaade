"""What KubeRay 1.7 and Kueue refuse although the API server takes it.

The rules are those of KubeRay's ``ray-operator/controllers/ray/utils/validation.go`` and of Kueue's webhooks for RayJob
and RayCluster, as far as fields that the manifests use, or may come to use, are concerned. Each gives a line, or
nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import yaml

from raycl.kubernetes.rayjob import KUEUE_LABEL, NAME_LIMIT
from tests.manifests.builds import Manifest, cluster, groups

_DNS_1035 = r"[a-z]([-a-z0-9]*[a-z0-9])?"
_SUBMISSION_MODES = {"K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"}
_UPGRADES = {"NewCluster", "NewClusterWithIncrementalUpgrade", "None"}
_RESOURCES = ("num-cpus", "num-gpus", "memory", "resources")


def refusals(manifest: Manifest) -> list[str]:
    """What KubeRay, and Kueue where it manages the object, have against a RayJob or a RayService."""
    rules: list[Callable[[Manifest], Iterator[str]]] = [_name, _cluster]
    rules += [_job] if manifest["kind"] == "RayJob" else [_service]
    rules += [_kueue] if KUEUE_LABEL in manifest["metadata"].get("labels", {}) else []
    return [line for rule in rules for line in rule(manifest)]


def _name(manifest: Manifest) -> Iterator[str]:
    name = manifest["metadata"]["name"]
    if len(name) > NAME_LIMIT or not re.fullmatch(_DNS_1035, name):
        yield f"name {name} is no DNS-1035 label of at most {NAME_LIMIT} characters"


def _cluster(manifest: Manifest) -> Iterator[str]:
    spec, (head, *workers) = cluster(manifest), groups(manifest)
    scales = spec.get("enableInTreeAutoscaling", False)
    environment = {entry["name"]: entry.get("value") for entry in _container(head).get("env", [])}
    for group in (head, *workers):
        name = group.get("groupName", "head")
        parameters = group["rayStartParams"]
        if group.get("resources") and any(parameters.get(key) for key in _RESOURCES):
            yield f"{name}: resources both of the group and in rayStartParams"
        if "labels" in parameters:
            yield f"{name}: rayStartParams.labels"
        if not _container(group).get("image"):
            yield f"{name}: no image"
        policy = group["template"]["spec"].get("restartPolicy", "Never")
        if scales and spec["autoscalerOptions"].get("version") == "v2" and policy != "Never":
            yield f"{name}: restartPolicy {policy} with the second autoscaler"
        if scales and group.get("suspend"):
            yield f"{name}: suspended with autoscaling"
    names = [group["groupName"] for group in workers]
    if len(set(names)) < len(names) or not all(re.fullmatch(_DNS_1035, name) for name in names):
        yield f"groups {names} are no distinct labels"
    if "RAY_enable_autoscaler_v2" in environment:
        yield "RAY_enable_autoscaler_v2 beside autoscalerOptions"
    if "gcsFaultToleranceOptions" in spec:
        if head["rayStartParams"].get("redis-password") or {"REDIS_PASSWORD", "RAY_REDIS_ADDRESS"} & environment.keys():
            yield "Redis named beside gcsFaultToleranceOptions"
        if "ray.io/ft-enabled" in manifest["metadata"].get("annotations", {}):
            yield "ray.io/ft-enabled beside gcsFaultToleranceOptions"
    elif "RAY_REDIS_ADDRESS" in environment:
        yield "RAY_REDIS_ADDRESS without gcsFaultToleranceOptions"
    if "REDIS_USERNAME" in environment or head["rayStartParams"].get("redis-username"):
        yield "a Redis user outside gcsFaultToleranceOptions"
    if spec.get("authOptions", {}).get("mode") == "token":
        version = re.fullmatch(r"(\d+)\.(\d+)\.\d+", spec.get("rayVersion", ""))
        if not version or (int(version[1]), int(version[2])) < (2, 52):
            yield f"rayVersion {spec.get('rayVersion')} has no tokens"
        if spec["authOptions"].get("enableK8sTokenAuth"):
            yield "enableK8sTokenAuth is of RayClusters alone"


def _job(manifest: Manifest) -> Iterator[str]:
    spec = manifest["spec"]
    mode, ends = spec.get("submissionMode", "K8sJobMode"), spec.get("shutdownAfterJobFinishes", False)
    strategy = spec.get("deletionStrategy")
    if mode not in _SUBMISSION_MODES:
        yield f"submissionMode {mode}"
    if spec.get("suspend") and not ends:
        yield "suspend without shutdownAfterJobFinishes"
    if spec.get("ttlSecondsAfterFinished", 0) and not ends:
        yield "ttlSecondsAfterFinished without shutdownAfterJobFinishes"
    if strategy is not None and strategy.get("deletionRules") and ends:
        yield "deletionRules beside shutdownAfterJobFinishes"
    if strategy is not None and not strategy.get("deletionRules") and not {"onSuccess", "onFailure"} <= strategy.keys():
        yield "an empty deletionStrategy"
    if mode == "SidecarMode" and {"submitterPodTemplate", "submitterConfig"} & spec.keys():
        yield "a submitter in SidecarMode"
    if mode == "InteractiveMode" and spec.get("backoffLimit"):
        yield "backoffLimit in InteractiveMode"
    if "clusterSelector" in spec and (spec.get("suspend") or spec.get("backoffLimit")):
        yield "clusterSelector with suspend or backoffLimit"
    for field in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        if spec.get(field, 1) <= 0:
            yield f"{field} {spec[field]}"
    if spec.get("backoffLimit", 0) < 0 or spec.get("ttlSecondsAfterFinished", 0) < 0:
        yield "a negative number"
    if not isinstance(yaml.safe_load(spec.get("runtimeEnvYAML", "{}")), dict):
        yield "runtimeEnvYAML is no mapping"


def _service(manifest: Manifest) -> Iterator[str]:
    spec = manifest["spec"]
    upgrade = spec.get("upgradeStrategy", {}).get("type", "NewCluster")
    timeout = manifest["metadata"].get("annotations", {}).get("ray.io/initializing-timeout", "1")
    if upgrade not in _UPGRADES:
        yield f"upgradeStrategy {upgrade}"
    if upgrade == "NewClusterWithIncrementalUpgrade" and "clusterUpgradeOptions" not in spec["upgradeStrategy"]:
        yield "an incremental upgrade without clusterUpgradeOptions"
    if not re.fullmatch(r"[1-9]\d*|([1-9]\d*(s|m|h))+", timeout):
        yield f"ray.io/initializing-timeout {timeout}"
    if spec.get("rayClusterDeletionDelaySeconds", 0) < 0:
        yield "a negative rayClusterDeletionDelaySeconds"
    if "name" in cluster(manifest)["headGroupSpec"].get("headService", {}).get("metadata", {}):
        yield "a named headService"


def _kueue(manifest: Manifest) -> Iterator[str]:
    spec, workers = cluster(manifest), groups(manifest)[1:]
    if not manifest["spec"].get("shutdownAfterJobFinishes"):
        yield "Kueue: the cluster outlives the job"
    if "clusterSelector" in manifest["spec"]:
        yield "Kueue: clusterSelector"
    if spec.get("enableInTreeAutoscaling"):
        yield "Kueue: autoscaling"
    if len(workers) > 7:
        yield f"Kueue: {len(workers)} worker groups"
    if "head" in [group["groupName"] for group in workers]:
        yield "Kueue: a worker group called head"


def _container(group: Manifest) -> Manifest:
    containers = group["template"]["spec"].get("containers")
    return containers[0] if containers else {}
