"""What `deploy/` and `k8s/` say is what Serve, KubeRay and raycl understand."""

from __future__ import annotations

import copy
import os
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from pydantic import BaseModel
from ray.serve.schema import ServeDeploySchema

import raycl
from raycl import environment
from raycl.config import ServingConfig
from raycl.errors import ConfigError
from raycl.serving import ray_app

ROOT = Path(__file__).resolve().parent.parent
SERVE = ROOT / "deploy" / "serve.yaml"
MANIFESTS = {path.name: path for path in sorted((ROOT / "k8s").glob("*.yaml"))}
NAME_LIMIT = 47
"""Characters that KubeRay 1.7 allows in the name of a RayJob or a RayService."""
SUBMISSION_MODES = {"K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"}


def read(path: Path) -> dict[str, Any]:
    """The one document of a YAML file."""
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


def unknown_keys(value: Any, model: type[BaseModel], where: str = "") -> list[str]:
    """Keys that Serve would pass over in silence: its schemas are open, for configs of newer versions."""
    found = []
    for key, part in value.items():
        if key not in model.model_fields:
            found.append(f"{where}{key}")
            continue
        for inner in _models_in(model.model_fields[key].annotation):
            for one in part if isinstance(part, list) else [part]:
                found += unknown_keys(one, inner, f"{where}{key}.")
    return found


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from _models_in(part)


def application() -> dict[str, Any]:
    """The one application of the Serve config."""
    (found,) = read(SERVE)["applications"]
    return dict(found)


def test_serve_knows_every_key_of_the_config() -> None:
    ServeDeploySchema.model_validate(read(SERVE))
    assert unknown_keys(read(SERVE), ServeDeploySchema) == []


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ((), "application"),
        (("http_options",), "timeout_s"),
        (("applications", 0), "route"),
        (("applications", 0, "deployments", 0), "max_queued"),
        (("applications", 0, "deployments", 0, "ray_actor_options"), "num_cpu"),
        (("applications", 0, "deployments", 0, "autoscaling_config"), "min_replica"),
    ],
)
def test_a_key_that_serve_passes_over_is_found(path: tuple[str | int, ...], name: str) -> None:
    tree = read(SERVE)
    tree["applications"][0]["deployments"][0]["autoscaling_config"] = {"min_replicas": 1}
    inner: Any = tree
    for step in path:
        inner = inner[step]
    inner[name] = 1
    ServeDeploySchema.model_validate(tree)
    assert unknown_keys(tree, ServeDeploySchema) == [
        ".".join([*(step for step in path if isinstance(step, str)), name])
    ]


def test_raycl_builds_the_application_from_its_arguments() -> None:
    found = application()
    assert found["import_path"] == f"{ray_app.__name__}:{ray_app.build.__name__}"
    assert found["name"] == ray_app.NAME
    built = ray_app.build(found["args"])._bound_deployment
    serving = ServingConfig.model_validate(found["args"]["serving"])
    assert list(built.init_args) == [found["args"]["workspace"], serving.model_dump(mode="json")]
    with pytest.raises(ConfigError, match="surplus"):
        ray_app.build({**found["args"], "surplus": 1})


def test_what_waits_is_bounded_and_what_is_turned_away_is_told_when_to_come_back() -> None:
    built = ray_app.build({"workspace": "w", "serving": {"guard": {"max_queued": 7}}})._bound_deployment
    assert built.max_queued_requests == 7
    assert (built.backpressure_config.status_code, built.backpressure_config.retry_after_s) == (503, 1)


def test_every_serving_setting_has_its_line_but_those_that_serve_itself_decides() -> None:
    assert set(application()["args"]["serving"]) == set(ServingConfig.model_fields) - {"host", "port"}


def test_the_overrides_meet_the_deployment_and_leave_alone_what_raycl_derives() -> None:
    (override,) = application()["deployments"]
    derived = {
        "num_replicas",
        "autoscaling_config",
        "max_ongoing_requests",
        "max_queued_requests",
        "backpressure_config",
    }
    assert override["name"] == ray_app.build(application()["args"])._bound_deployment.name
    assert not override.keys() & derived


def test_the_environment_of_serves_fast_path_is_that_of_the_manifest_on_every_node() -> None:
    explained = dict(re.findall(r"^#   (RAY_SERVE_\w+)=(\w+) ", SERVE.read_text(encoding="utf-8"), re.MULTILINE))
    assert len(explained) == 5
    cluster = read(MANIFESTS["serve.yaml"])["spec"]["rayClusterConfig"]
    for container in containers(cluster):
        assert plain_env(container) == {"RAY_USAGE_STATS_ENABLED": "0", "GOMP_SPINCOUNT": "100000", **explained}
    for name in explained.keys() & environment._DEFAULTS.keys():
        assert explained[name] == environment._DEFAULTS[name]


def test_kuberay_serves_what_serve_deploy_would() -> None:
    assert yaml.safe_load(read(MANIFESTS["serve.yaml"])["spec"]["serveConfigV2"]) == read(SERVE)


def test_a_replica_fits_a_worker() -> None:
    options = application()["deployments"][0]["ray_actor_options"]
    _, *workers = containers(read(MANIFESTS["serve.yaml"])["spec"]["rayClusterConfig"])
    for worker in workers:
        limits = worker["resources"]["limits"]
        # Ray keeps three tenths of a node's memory for its object store.
        assert options["memory"] <= 0.7 * int(limits["memory"].removesuffix("Gi")) * 2**30
        assert options["num_cpus"] <= int(limits["cpu"])


def test_the_service_is_replaced_whole_scaled_by_the_second_autoscaler_and_closed_by_a_token() -> None:
    spec = read(MANIFESTS["serve.yaml"])["spec"]
    assert spec["upgradeStrategy"] == {"type": "NewCluster"}
    assert spec["rayClusterConfig"]["enableInTreeAutoscaling"] is True
    assert spec["rayClusterConfig"]["autoscalerOptions"]["version"] == "v2"


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_keeps_to_the_limits_that_only_the_operator_checks(name: str) -> None:
    manifest = read(MANIFESTS[name])
    assert manifest["apiVersion"] == "ray.io/v1"
    assert len(manifest["metadata"]["name"]) <= NAME_LIMIT
    spec = manifest["spec"]
    cluster = spec.get("rayClusterSpec") or spec["rayClusterConfig"]
    groups = [group["groupName"] for group in cluster["workerGroupSpecs"]]
    for found in (manifest["metadata"]["name"], *groups):
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", found)
    assert len(set(groups)) == len(groups)
    assert cluster["authOptions"] == {"mode": "token", "secretName": "raycl-ray-token"}
    assert cluster["rayVersion"] == ray.__version__
    for container in containers(cluster):
        assert container["image"] == f"registry.example.invalid/raycl:{raycl.__version__}"
        assert plain_env(container)["RAY_USAGE_STATS_ENABLED"] == "0"
        assert container["resources"]["requests"] == container["resources"]["limits"]


def test_the_job_runs_a_script_of_the_repository_in_a_mode_that_the_operator_knows() -> None:
    spec = read(MANIFESTS["job.yaml"])["spec"]
    python, script, *_ = spec["entrypoint"].split()
    assert python == "python"
    assert (ROOT / script).is_file()
    assert spec["submissionMode"] in SUBMISSION_MODES
    # The operator refuses deletion rules beside these two, and the second without the first.
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] > 0
    assert "deletionStrategy" not in spec


def test_the_job_publishes_where_the_service_reads() -> None:
    entrypoint = read(MANIFESTS["job.yaml"])["spec"]["entrypoint"]
    assert entrypoint.endswith(f"--set workspace={application()['args']['workspace']}")


def containers(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    """The Ray container of the head and of each worker group."""
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"]["containers"][0] for group in groups]


def test_the_jobs_processes_have_the_allocator_and_threads_of_an_embedded_ray() -> None:
    for container in containers(read(MANIFESTS["job.yaml"])["spec"]["rayClusterSpec"]):
        found = plain_env(container)
        for name in (
            "GOMP_SPINCOUNT",
            "MALLOC_TRIM_THRESHOLD_",
            "MALLOC_MMAP_THRESHOLD_",
            "ARROW_DEFAULT_MEMORY_POOL",
        ):
            assert found[name] == environment._DEFAULTS[name]


def plain_env(container: dict[str, Any]) -> dict[str, str]:
    """The container's environment."""
    return {entry["name"]: entry["value"] for entry in container["env"]}


@pytest.fixture(scope="module")
def crds() -> dict[str, dict[str, Any]]:
    """KubeRay's schemas of ``ray.io/v1`` by kind, closed to unknown fields as the API server's strict check is."""
    folder = os.environ.get("RAYCL_KUBERAY_CRDS")
    if not folder:
        pytest.skip("needs KubeRay's CustomResourceDefinitions: name their folder in RAYCL_KUBERAY_CRDS")
    found = {}
    parser = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # they are long, and the parser in C is ten times as fast
    for path in sorted(Path(folder).glob("*.yaml")):
        definition = parser(path.read_text(encoding="utf-8")).get_single_data()
        for version in definition["spec"]["versions"]:
            if version["name"] == "v1":
                found[definition["spec"]["names"]["kind"]] = closed(version["schema"]["openAPIV3Schema"])
    return found


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with every object closed to fields that it does not name; an object's own metadata is Kubernetes'."""
    schema = copy.deepcopy(schema)

    def close(node: Any) -> None:
        if isinstance(node, list):
            for part in node:
                close(part)
        if not isinstance(node, dict):
            return
        opened = "additionalProperties" in node or node.get("x-kubernetes-preserve-unknown-fields")
        if node.get("type") == "object" and not opened:
            node["additionalProperties"] = False
        for part in node.values():
            close(part)

    close(schema)
    schema["properties"]["metadata"] = {"type": "object"}
    return schema


def complaints(manifest: dict[str, Any], schemas: dict[str, dict[str, Any]]) -> list[str]:
    """What the manifest's schema has against it."""
    jsonschema = pytest.importorskip("jsonschema")  # a dependency of Ray
    validator = jsonschema.Draft7Validator(schemas[manifest["kind"]])
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(manifest)]


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_is_of_its_custom_resource_definition(name: str, crds: dict[str, dict[str, Any]]) -> None:
    assert complaints(read(MANIFESTS[name]), crds) == []


@pytest.mark.parametrize("name", MANIFESTS)
@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        (("spec",), "rayClusterConfigs", {}),
        (("spec",), "suspend", "no"),
        (("CLUSTER", "headGroupSpec", "template", "spec", "containers", 0), "images", "x"),
        (("CLUSTER", "workerGroupSpecs", 0), "minReplicas", "two"),
        (("CLUSTER", "authOptions"), "mode", "password"),
    ],
)
def test_a_manifest_with_a_fault_is_refused(
    name: str, path: tuple[str | int, ...], key: str, value: Any, crds: dict[str, dict[str, Any]]
) -> None:
    manifest = read(MANIFESTS[name])
    inner: Any = manifest
    for step in path:
        if step == "CLUSTER":
            spec = manifest["spec"]
            inner = spec["rayClusterSpec"] if "rayClusterSpec" in spec else spec["rayClusterConfig"]
        else:
            inner = inner[step]
    inner[key] = value
    assert len(complaints(manifest, crds)) == 1
