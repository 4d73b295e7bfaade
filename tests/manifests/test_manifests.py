"""What manifests name is there: images, commands, scripts, mounted config, accounts, volumes, ports, labels."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from typer.main import get_command

import raycl
from raycl import cli, config_file
from tests.manifests.builds import (
    OVERLAYS,
    ROOT,
    Manifest,
    built,
    cluster,
    cpus,
    groups,
    of_kind,
    pod_templates,
    resource_bytes,
    the,
)

SECRETS = {"raycl-ray-token": {"auth_token"}, "raycl-redis": {"password"}, "raycl-s3": set(), "raycl-callers": set()}
"""What whoever deploys makes beforehand, and the keys that are named."""
VERSION = raycl.__version__


def templates(overlay: str) -> Iterator[tuple[str, Manifest]]:
    """Every pod of an overlay, and whose it is."""
    for manifest in built(overlay):
        for where, template in pod_templates(manifest):
            yield f"{manifest['kind']} {manifest['metadata']['name']} {where}", template


def values(node: Any, key: str) -> Iterator[Any]:
    """Every value of ``key`` anywhere in a tree."""
    if isinstance(node, dict):
        for name, part in node.items():
            if name == key:
                yield part
            yield from values(part, key)
    elif isinstance(node, list):
        for part in node:
            yield from values(part, key)


def environment(overlay: str) -> dict[str, str]:
    """What ConfigMaps tell the containers."""
    maps = [the(overlay, "ConfigMap", name) for name in ("raycl-ray-env", "raycl-env")]
    return {name: value for one in maps for name, value in one["data"].items()}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_images_are_of_this_version_and_of_a_target_of_the_dockerfile(overlay: str) -> None:
    targets = re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "deploy" / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    registry = "" if overlay == "laptop" else "registry.example.invalid/"
    ours = {f"{registry}raycl:{VERSION}-{target}" for target in ("cpu", "gpu") if target in targets}
    found = {image for manifest in built(overlay) for image in values(manifest, "image")}
    redis = {image for image in found if re.fullmatch(r"docker\.io/library/redis:\d+\.\d+\.\d+-\w+", image)}
    assert len(redis) == 1
    assert found - redis <= ours
    assert len(found - redis) == (2 if overlay == "production-gpu" else 1)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_gpus_and_the_image_for_them_go_together(overlay: str) -> None:
    for where, template in templates(overlay):
        for container in template["spec"]["containers"]:
            asks = "nvidia.com/gpu" in container["resources"].get("limits", {})
            assert asks == container["image"].endswith("-gpu") == (where.endswith(" gpu")), where


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_ray_is_of_the_installed_version_closed_by_a_token_and_silent(overlay: str) -> None:
    for manifest in [*of_kind(overlay, "RayJob"), *of_kind(overlay, "RayService")]:
        assert cluster(manifest)["rayVersion"] == ray.__version__
        assert cluster(manifest)["authOptions"] == {"mode": "token", "secretName": "raycl-ray-token"}
        assert cluster(manifest)["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert environment(overlay)["RAY_USAGE_STATS_ENABLED"] == "0"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_job_runs_a_script_with_the_mounted_config_which_is_good(
    overlay: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in environment(overlay).items():
        monkeypatch.setenv(name, value)
    scripts = set()
    for job in of_kind(overlay, "RayJob"):
        python, script, config, *rest = job["spec"]["entrypoint"].split()
        assert (python, rest) == ("python", ["--json"])
        scripts.add(script)
        for group in groups(job):
            spec = group["template"]["spec"]
            (mount,) = [
                one for one in spec["containers"][0]["volumeMounts"] if config.startswith(f"{one['mountPath']}/")
            ]
            (volume,) = [one for one in spec["volumes"] if one["name"] == mount["name"]]
            (mounted,) = [
                one for one in of_kind(overlay, "ConfigMap") if one["metadata"]["name"] == volume["configMap"]["name"]
            ]
            file = tmp_path / Path(config).name
            file.write_text(mounted["data"][file.name], encoding="utf-8")
            loaded = config_file.load(file)
            assert loaded.workspace == environment(overlay)["RAYCL_WORKSPACE"]
            assert group["rayStartParams"]["object-spilling-directory"] in {
                one["mountPath"] for one in spec["containers"][0]["volumeMounts"]
            }
    assert scripts == {f"jobs/{path.name}" for path in (ROOT / "jobs").glob("*.py") if path.name != "submit.py"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_nightly_launcher_says_what_raycl_understands_of_a_template_that_is_there(overlay: str) -> None:
    cron = the(overlay, "CronJob", "raycl-nightly")["spec"]
    ((_, template),) = pod_templates(the(overlay, "CronJob", "raycl-nightly"))
    (container,) = template["spec"]["containers"]
    program, verb, *arguments = container["command"]
    assert program == "raycl"
    command = get_command(cli.app).commands[verb]  # type: ignore[attr-defined]
    asked = command.make_context(verb, arguments).params
    assert asked["wait"] is True
    job = the(overlay, "RayJob", asked["template"])["spec"]
    assert job["suspend"] is True
    # The launcher outlives the night, so that Forbid guards the whole of it, and the night ends before the next begins.
    assert job["activeDeadlineSeconds"] < cron["jobTemplate"]["spec"]["activeDeadlineSeconds"] < 24 * 3600
    assert cron["concurrencyPolicy"] == "Forbid"
    assert {"startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"} <= cron.keys()
    assert cron["timeZone"] == "Etc/UTC"
    (rule,) = cron["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["containerName"] == container["name"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_launcher_may_do_what_it_does_and_nothing_else(overlay: str) -> None:
    (role,) = of_kind(overlay, "Role")
    assert role["rules"] == [{"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["get", "create"]}]
    (binding,) = of_kind(overlay, "RoleBinding")
    assert (binding["roleRef"]["name"], [one["name"] for one in binding["subjects"]]) == (
        "raycl-launch",
        ["raycl-launch"],
    )
    mounted = {where for where, one in templates(overlay) if one["spec"].get("automountServiceAccountToken", True)}
    assert mounted == {"CronJob raycl-nightly job", "RayService raycl head"}
    for where, template in templates(overlay):
        expected = {
            "CronJob raycl-nightly job": "raycl-launch",
            "RayService raycl head": "raycl-serve-head",
            "StatefulSet raycl-redis pod": None,
        }.get(where, "raycl")
        assert template["spec"].get("serviceAccountName") == expected, where


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_pods_refer_to_is_built_or_a_secret_that_the_guide_tells_of(overlay: str) -> None:
    found = built(overlay)
    there = {(one["kind"], one["metadata"]["name"]) for one in found}
    assert not any(kind == "Secret" for kind, _ in there)
    for where, template in templates(overlay):
        spec = template["spec"]
        for name in values(spec, "serviceAccountName"):
            assert ("ServiceAccount", name) in there, where
        for reference in [*values(spec, "configMapRef"), *values(spec, "configMap")]:
            assert ("ConfigMap", reference["name"]) in there, where
        for name in values(spec, "claimName"):
            assert ("PersistentVolumeClaim", name) in there, where
        volumes = {one["name"] for one in spec.get("volumes", [])} | set(template_claims(found))
        assert {one["name"] for mounts in values(spec, "volumeMounts") for one in mounts} <= volumes, where
    named = {one["name"]: one for one in [*values(found, "secretRef"), *values(found, "secretKeyRef")]}
    named["raycl-ray-token"] = {"name": "raycl-ray-token", "key": "auth_token"}
    assert named.keys() == SECRETS.keys()
    guide = (ROOT / "deploy" / "README.md").read_text(encoding="utf-8")
    for name, one in named.items():
        assert {one["key"]} == SECRETS[name] if "key" in one else one["optional"] is True
        assert f"create secret generic {name}" in guide


def template_claims(found: list[Manifest]) -> Iterator[str]:
    """Volumes that a StatefulSet makes of its own."""
    for claims in values(found, "volumeClaimTemplates"):
        yield from (one["metadata"]["name"] for one in claims)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_is_of_the_restricted_standard_that_its_namespace_enforces(overlay: str) -> None:
    (namespace,) = of_kind(overlay, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    spaces = {one["metadata"].get("namespace", namespace["metadata"]["name"]) for one in built(overlay)}
    assert spaces == {namespace["metadata"]["name"]}
    for where, template in templates(overlay):
        spec = template["spec"]
        context = spec["securityContext"]
        assert context["runAsNonRoot"] is True, where
        assert context["runAsUser"] > 0, where
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, where
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), where
        assert all(
            {"configMap", "emptyDir", "persistentVolumeClaim"} & volume.keys() for volume in spec.get("volumes", [])
        )
        for container in spec["containers"]:
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False, where
            assert own["capabilities"] == {"drop": ["ALL"]}, where
            assert not any("hostPort" in port for port in container.get("ports", [])), where
    sidecar = cluster(the(overlay, "RayService", "raycl"))["autoscalerOptions"]["securityContext"]
    assert (sidecar["allowPrivilegeEscalation"], sidecar["runAsNonRoot"]) == (False, True)
    assert sidecar["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_container_has_requests_and_limits_and_its_whole_memory_is_its_own(overlay: str) -> None:
    for where, template in templates(overlay):
        for container in template["spec"]["containers"]:
            asked = container["resources"]
            assert asked["requests"]["memory"] == asked["limits"]["memory"], where
            assert cpus(asked["requests"]["cpu"]) <= cpus(asked["limits"]["cpu"]), where
            spilled = [one["emptyDir"]["sizeLimit"] for one in template["spec"].get("volumes", []) if "emptyDir" in one]
            if "ephemeral-storage" in asked["limits"]:
                assert resource_bytes(asked["limits"]["ephemeral-storage"]) > sum(map(resource_bytes, spilled)), where


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_replica_of_the_service_fits_a_worker_and_ends_in_time(overlay: str) -> None:
    service = the(overlay, "RayService", "raycl")
    config = yaml.safe_load(service["spec"]["serveConfigV2"])
    name = "serve-laptop.yaml" if overlay == "laptop" else "serve.yaml"
    assert config == yaml.safe_load((ROOT / "deploy" / name).read_text(encoding="utf-8"))
    ((deployment,),) = [one["deployments"] for one in config["applications"]]
    for worker in groups(service)[1:]:
        limits = worker["template"]["spec"]["containers"][0]["resources"]["limits"]
        # Ray keeps three tenths of a node's memory for its object store.
        assert deployment["ray_actor_options"]["memory"] <= 0.7 * resource_bytes(limits["memory"])
        assert deployment["ray_actor_options"]["num_cpus"] <= cpus(limits["cpu"])
        grace = worker["template"]["spec"]["terminationGracePeriodSeconds"]
        assert grace > deployment.get("graceful_shutdown_timeout_s", 20)
        assert worker["minReplicas"] <= worker["replicas"] <= worker["maxReplicas"]
    serving = config["applications"][0]["args"]["serving"]
    assert serving["min_replicas"] <= groups(service)[1]["minReplicas"]
    assert config["http_options"]["port"] in values(groups(service)[1], "containerPort")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_service_is_replaced_whole_scaled_by_the_second_autoscaler_and_keeps_its_state(overlay: str) -> None:
    service = the(overlay, "RayService", "raycl")
    assert service["spec"]["upgradeStrategy"] == {"type": "NewCluster"}
    assert service["spec"]["excludeHeadPodFromServeSvc"] is True
    assert cluster(service)["enableInTreeAutoscaling"] is True
    assert cluster(service)["autoscalerOptions"]["version"] == "v2"
    (redis,) = of_kind(overlay, "Service")
    port = redis["spec"]["ports"][0]["port"]
    assert cluster(service)["gcsFaultToleranceOptions"]["redisAddress"] == f"{redis['metadata']['name']}:{port}"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_is_closed_by_a_policy_and_only_callers_reach_the_answers(overlay: str) -> None:
    policies = of_kind(overlay, "NetworkPolicy")
    for where, template in templates(overlay):
        labels = template["metadata"]["labels"]
        closing = [one for one in policies if "Ingress" in one["spec"]["policyTypes"] and selects(one, labels)]
        assert closing, where
        opened = {
            rule["port"] for one in closing for part in one["spec"].get("ingress", []) for rule in part.get("ports", [])
        }
        assert not opened & {10001, 6379} or where.startswith("StatefulSet"), where
        for one in closing:
            for part in one["spec"].get("ingress", []):
                assert part["from"], where
    selected = [
        one["metadata"]["name"]
        for one in policies
        if not any(selects(one, t["metadata"]["labels"]) for _, t in templates(overlay))
    ]
    assert selected == []


def selects(one: Manifest, labels: dict[str, str]) -> bool:
    """Whether the selector of a policy or a budget fits a pod; labels that the operator adds count as there."""
    selector = one["spec"].get("podSelector", one["spec"].get("selector"))
    plain = {key: value for key, value in selector.get("matchLabels", {}).items() if not key.startswith("ray.io/")}
    fits = plain.items() <= labels.items()
    for part in selector.get("matchExpressions", []):
        if not part["key"].startswith("ray.io/"):
            fits &= (labels.get(part["key"]) in part["values"]) == (part["operator"] == "In")
    return fits


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_budgets_and_monitors_find_their_pods_and_ports(overlay: str) -> None:
    pods = [template for _, template in templates(overlay)]
    for one in [*of_kind(overlay, "PodDisruptionBudget"), *of_kind(overlay, "PodMonitor")]:
        assert any(selects(one, template["metadata"]["labels"]) for template in pods), one["metadata"]["name"]
    for monitor in of_kind(overlay, "PodMonitor"):
        ports = {port["name"] for template in pods for own in values(template, "ports") for port in own}
        assert {one["port"] for one in monitor["spec"]["podMetricsEndpoints"]} <= ports
    assert bool(of_kind(overlay, "PodMonitor")) == (overlay != "laptop")


def test_overlays_differ_in_what_they_are_for() -> None:
    workspaces = {overlay: environment(overlay)["RAYCL_WORKSPACE"] for overlay in OVERLAYS}
    assert len(set(workspaces.values())) == len(OVERLAYS) == 3
    schedules = {
        the(overlay, "CronJob", "raycl-nightly")["spec"]["schedule"] for overlay in ("staging", "production-gpu")
    }
    assert len(schedules) == 2
    with_gpu = {one["metadata"]["name"] for one in of_kind("production-gpu", "RayJob") if len(groups(one)) == 3}
    assert with_gpu == {"raycl-train", "raycl-index", "raycl-nightly", "raycl-doctor"}
