"""Every RayJob and RayService is what a real API server takes, strictly; a launch makes a run in it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from raycl.errors import RayclError
from raycl.kubernetes import launch, rayjob
from raycl.kubernetes.api import Api, ApiError
from raycl.kubernetes.rayjob import Owner
from tests.manifests import api_server
from tests.manifests.api_server import Server
from tests.manifests.builds import OVERLAYS, cluster, of_kind, the

NOW = datetime(2026, 11, 21, 2, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An API server with KubeRay's kinds."""
    with api_server.running(tmp_path_factory.mktemp("api")) as found:
        yield found


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_server_takes_every_manifest_and_every_run(server: Server, overlay: str) -> None:
    jobs, services = of_kind(overlay, "RayJob"), of_kind(overlay, "RayService")
    runs = [rayjob.copy_of(one, rayjob.run_name(one["metadata"]["name"], NOW)) for one in jobs]
    for manifest in [*jobs, *services, *runs]:
        answer = server.apply(manifest)
        assert answer.is_success, answer.text


def test_the_server_is_strict(server: Server) -> None:
    manifest = the("production-gpu", "RayService", "raycl")
    cluster(manifest)["headGroupSpec"]["template"]["spec"]["containers"][0]["images"] = "x"
    manifest["spec"]["upgradeStrategy"]["kind"] = "NewCluster"
    answer = server.apply(manifest)
    assert not answer.is_success
    assert ".images" in answer.text
    assert ".kind" in answer.text


def test_a_launch_makes_one_run_a_night_and_waits_for_what_the_operator_says(server: Server) -> None:
    """The operator's part, the status, is written by the test."""
    template = the("production-gpu", "RayJob", "raycl-nightly")
    api = Api(server.client, template["metadata"]["namespace"], lambda: None)
    assert api.create(template)
    owner = Owner(f"raycl-nightly-{int(NOW.timestamp()) // 60}", "u-1")
    name, created = launch.launch(api, "raycl-nightly", NOW, owner=owner, overrides=["train.epochs=2"])
    assert (name, created) == ("raycl-nightly-20261121-0200", True)
    assert launch.launch(api, "raycl-nightly", NOW, owner=owner) == (name, False)
    run = api.get(name)
    entrypoint = template["spec"]["entrypoint"] + " --set train.epochs=2"
    assert run["spec"] == api.get("raycl-nightly")["spec"] | {
        "entrypoint": entrypoint
    }  # in a queue: it waits for Kueue
    assert run["metadata"]["ownerReferences"][0]["uid"] == "u-1"

    looks: list[float] = []

    def operator(pause_s: float) -> None:
        looks.append(pause_s)
        job = "RUNNING" if len(looks) == 1 else "FAILED"
        status = {"jobDeploymentStatus": {"RUNNING": "Running", "FAILED": "Failed"}[job], "jobStatus": job}
        found = api.get(name) | {"status": status}
        server.client.put(
            f"/apis/ray.io/v1/namespaces/{api.namespace}/rayjobs/{name}/status", json=found
        ).raise_for_status()

    with pytest.raises(RayclError, match=f"{name}: Failed, job FAILED"):
        launch.wait(api, name, 0.5, operator)
    assert looks == [0.5, 0.5]


def test_the_servers_own_words_reach_the_person(server: Server) -> None:
    api = Api(server.client, "raycl", lambda: None)
    with pytest.raises(ApiError, match=r'rayjobs\.ray\.io "raycl-none" not found'):
        api.get("raycl-none")
    with pytest.raises(ApiError, match="unknown field"):
        api.create(
            {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": "a"}, "spec": {"suspended": True}}
        )
