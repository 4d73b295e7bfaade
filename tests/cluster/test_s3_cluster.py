"""A night from and to an S3 server, and the service from it, with the credentials in the nodes' environment only."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import yaml

from raycl import ports
from raycl.storage import pointer
from raycl.storage.store import Store
from raycl.storage.versions import Workspace
from tests.cluster import builders, nodes
from tests.cluster.nodes import Cluster
from tests.cluster.test_operations import answers, ask, node_environment
from tests.cluster.test_s3 import tree, uploaded

pytestmark = [pytest.mark.cluster, pytest.mark.long]

ROOT = Path(__file__).resolve().parents[2]
_WITHIN_S = 900


def run(cluster: Cluster, *command: str) -> str:
    """Run a command to its end; it is said which cluster is meant."""
    env = {**cluster.env, "RAY_API_SERVER_ADDRESS": cluster.dashboard}
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=_WITHIN_S, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_a_night_and_the_service_live_on_s3(s3_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``RAYCL_TEST_S3`` names a server other than moto, such as Ceph's gateway; moto takes any secret."""
    if "RAYCL_TEST_S3" not in os.environ:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secrets.token_hex(16))
    credentials = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    builders.write_log(tmp_path / "log", users=3_000, items=300, num_files=4)
    workspace = s3_store.under("workspace")
    config = builders.write_config(tmp_path / "raycl.yaml", tree(uploaded(tmp_path / "log", s3_store), workspace.uri))
    proxy, of_worker = ports.free(2)
    with (
        nodes.head(0, **node_environment(), **credentials, RAYCL_WORKSPACE=workspace.uri) as cluster,
        cluster.joined("w1"),
        cluster.joined("w2", RAY_SERVE_WORKER_PROXY_HTTP_PORT=str(of_worker)),
    ):
        submit = (sys.executable, str(ROOT / "jobs" / "submit.py"))
        said = run(cluster, *submit, "doctor", str(config))
        (storage,) = [one for one in json.loads(last_line(said))["checks"] if one["check"] == "storage"]
        assert storage["state"] == "good"
        run(cluster, *submit, "nightly", str(config))
        (name,) = Workspace(workspace).finished("releases")
        assert pointer.current(workspace) == pointer.Pointer(1, name)

        bearer = {"Authorization": f"Bearer {cluster.token}"}
        listed = httpx.get(f"{cluster.dashboard}/api/jobs/", headers=bearer, trust_env=False).text
        kept = b"".join(workspace.read(path) for path in workspace.files() if path.endswith((".json", ".html")))
        assert credentials["AWS_SECRET_ACCESS_KEY"] not in listed + kept.decode()

        serve = yaml.safe_load((ROOT / "deploy" / "serve-laptop.yaml").read_text(encoding="utf-8"))
        serve["http_options"] |= {"host": "127.0.0.1", "port": proxy}
        serve["applications"][0]["deployments"][0]["ray_actor_options"]["num_cpus"] = 0
        file = tmp_path / "serve.yaml"
        file.write_text(yaml.safe_dump(serve), encoding="utf-8")
        run(cluster, "serve", "deploy", str(file), "-a", cluster.dashboard)
        deadline = time.monotonic() + _WITHIN_S
        while not answers(proxy):
            assert time.monotonic() < deadline, run(cluster, "serve", "status", "-a", cluster.dashboard)
            time.sleep(0.5)
        assert ask(proxy).json()["release"] == name


def last_line(said: str) -> str:
    """The last line of JSON of a job's output."""
    return [line for line in said.splitlines() if line.startswith("{")][-1]
