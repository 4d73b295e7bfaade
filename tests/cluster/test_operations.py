"""A cluster of three nodes with a token, as a platform team runs one: jobs, lost nodes, the service, a lost head."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from raycl.ports import free as free_ports
from raycl.storage import pointer
from raycl.storage.store import Store
from raycl.storage.versions import Workspace
from tests.alerts import metrics
from tests.cluster import builders, nodes, processes
from tests.cluster.nodes import Cluster
from tests.cluster.outputs import contents, different

pytestmark = [pytest.mark.cluster, pytest.mark.long]

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("pairs", "towers", "evaluations", "releases")
_WITHIN_S = 600
_SCRAPED_WITHIN_S = 60

# Which work of each stage a node is killed in: a task of Ray Data by its name, or an actor.
MOMENTS = {"pairs": "Map(clean)", "train": "RayTrainWorker", "evaluate": "Map(evaluate)", "index": "Map(build_shard)"}


@dataclass(frozen=True)
class Operated:
    """The cluster, the ports of its nodes' proxies, and a team's config."""

    cluster: Cluster
    proxies: dict[str, int]
    config: Path
    store: Store

    def submit(self, stage: str, config: Path | None = None, **env: str) -> subprocess.Popen[bytes]:
        """Start ``jobs/submit.py``, its output beside the config."""
        config = config or self.config
        command = [sys.executable, str(ROOT / "jobs" / "submit.py"), stage, str(config)]
        environment = {**self.cluster.env, "RAY_API_SERVER_ADDRESS": self.cluster.dashboard, **env}
        return processes.start(command, environment, config.with_suffix(f".{stage}.log"))

    def said(self, stage: str, config: Path | None = None) -> str:
        """What it said."""
        return (config or self.config).with_suffix(f".{stage}.log").read_text(errors="replace")

    def ray(self, *command: str) -> str:
        """Run a command of Ray's to its end."""
        ended = subprocess.run(
            command, env=self.cluster.env, capture_output=True, text=True, timeout=_WITHIN_S, check=False
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def scraped(self) -> set[str]:
        """The metrics of all nodes."""
        found: set[str] = set()
        for port in self.cluster.metrics.values():
            with suppress(httpx.TransportError):
                found |= metrics.scraped(httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text)
        return found


def node_environment() -> dict[str, str]:
    """``deploy/ray.env`` without HAProxy, whose ports are those of a machine and not of a node."""
    lines = (ROOT / "deploy" / "ray.env").read_text(encoding="utf-8").splitlines()
    found = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    return {name: value for name, value in found.items() if name != "RAY_SERVE_ENABLE_HA_PROXY"}


@pytest.fixture(scope="module")
def operated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    """A head that does no work and keeps its state on disk, two workers, and the config of a small log."""
    folder = tmp_path_factory.mktemp("team")
    log = folder / "log"
    builders.write_log(log, users=8_000, items=1_000, num_files=40)
    state = {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(folder / "gcs")}
    state["RAY_gcs_rpc_server_reconnect_timeout_s"] = "600"  # how long workers wait for a head, as KubeRay sets it
    ports = dict(zip(("head", "w1", "w2"), free_ports(3), strict=True))
    environment = {**node_environment(), **state, "RAYCL_WORKSPACE": str(folder / "workspace")}
    with (
        nodes.head(0, **environment) as cluster,
        cluster.joined("w1", RAY_SERVE_WORKER_PROXY_HTTP_PORT=str(ports["w1"])),
        cluster.joined("w2", RAY_SERVE_WORKER_PROXY_HTTP_PORT=str(ports["w2"])),
    ):
        config = builders.write_config(folder / "raycl.yaml", tree(log, folder / "workspace"))
        yield Operated(cluster, ports, config, Store(str(folder / "workspace")))


def tree(log: Path, workspace: Path) -> dict[str, Any]:
    """A config with many tasks in every stage."""
    made = builders.config_tree(log, str(workspace))
    made["pairs"]["num_buckets"] = 16
    made["train"] |= {
        "epochs": 6,
        "global_batch_size": 252,
        "checkpoint_steps": 100,
        "num_workers": {"min": 1, "max": 3},
        "max_failures": 5,
    }
    made["items"]["display"] = ["category"]
    made["index"] = {"num_shards": 30}
    return made


@contextmanager
def watched(operated: Operated) -> Iterator[set[str]]:
    """Scrape the nodes every few seconds meanwhile; the set grows."""
    found: set[str] = set()
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(4.0):
            found.update(operated.scraped())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


SEEN: set[str] = set()
"""Metrics that the tests of this file found, in their order."""


@pytest.mark.parametrize("token", [None, "0" * 64], ids=["none", "wrong"])
def test_a_job_that_is_submitted_without_the_token_is_refused(operated: Operated, token: str | None) -> None:
    env = {"RAY_AUTH_TOKEN_PATH": "", "HOME": str(operated.config.parent)}
    env |= {"RAY_AUTH_TOKEN": token} if token else {}
    assert operated.submit("pairs", None, **env).wait(_WITHIN_S) != 0
    said = operated.said("pairs")
    assert ("no token for the cluster" if token is None else "does not take the job") in said, said
    jobs = f"{operated.cluster.dashboard}/api/jobs/"
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    assert httpx.post(jobs, json={"entrypoint": "true"}, headers=headers, trust_env=False).status_code in (401, 403)
    bearer = {"Authorization": f"Bearer {operated.cluster.token}"}
    listed = httpx.get(jobs, headers=bearer, trust_env=False).json()
    assert [one for one in listed if one["type"] == "SUBMISSION"] == []


@pytest.mark.parametrize("stage", [*MOMENTS, "publish"])
def test_a_submitted_job_ends_well_though_a_node_is_lost_at_its_work(operated: Operated, stage: str) -> None:
    with watched(operated) as found, operated.cluster.joined(f"lost-{stage}") as lost:
        running = operated.submit(stage)
        try:
            if stage in MOMENTS:
                until(lambda: at_work(operated, lost, stage), running, lambda: operated.said(stage))
                processes.kill(lost)
            assert running.wait(_WITHIN_S) == 0, operated.said(stage)
        finally:
            processes.kill(running)
        SEEN.update(found)
    operated.cluster.wait_for(3)
    last = json.loads(re.findall(r"^\{.*\}$", operated.said(stage), re.MULTILINE)[-1])
    assert (last["stage"], last["worked"]) == (stage, True)
    if stage == "publish":
        assert pointer.current(operated.store) is not None
        assert {name: len(Workspace(operated.store).finished(name)) for name in STAGES} == dict.fromkeys(STAGES, 1)


def at_work(operated: Operated, node: subprocess.Popen[bytes], stage: str) -> bool:
    """Whether the node does work of the stage; of training, whether it is past a checkpoint."""
    begun = stage != "train" or any(Path(operated.store.uri).glob("towers/*/checkpoints/step-*/progress.json"))
    return begun and works(node, MOMENTS[stage])


def works(node: subprocess.Popen[bytes], word: str) -> bool:
    """Whether a worker process of the node says that it is at this: Ray's workers tell in their titles."""
    titles = []
    for process in psutil.Process(node.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            titles += process.cmdline()[:1]
    return any(title.startswith("ray::") and word in title for title in titles)


def until(reached: Callable[[], bool], running: subprocess.Popen[bytes], said: Callable[[], str]) -> None:
    """Wait for a moment of a running job."""
    deadline = time.monotonic() + _WITHIN_S
    while not reached():
        assert running.poll() is None, f"the job ended too early: {said()}"
        assert time.monotonic() < deadline, f"the moment never came: {said()}"
        time.sleep(0.002)


def test_runs_of_two_users_do_not_touch_each_other(operated: Operated, tmp_path: Path) -> None:
    """The same log and config in two workspaces at once: each has all of its own, and both have the same."""
    configs = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        made = tree(operated.config.parent / "log", tmp_path / name / "workspace")
        made["pairs"]["num_buckets"] = 4
        made["train"] |= {"epochs": 1, "num_workers": 1}
        made["index"] = {"num_shards": 2}
        configs.append(builders.write_config(tmp_path / name / "raycl.yaml", made))
    running = [operated.submit("nightly", config) for config in configs]
    try:
        for config, job in zip(configs, running, strict=True):
            assert job.wait(_WITHIN_S) == 0, operated.said("nightly", config)
    finally:
        for job in running:
            processes.kill(job)
    first, second = (Workspace(Store(str(config.parent / "workspace"))) for config in configs)
    for stage in STAGES:
        (one,), (other,) = first.finished(stage), second.finished(stage)
        assert first.store.uri in first.open(stage, one).store.uri
        if stage in ("pairs", "towers"):
            unlike = different(contents(first.open(stage, one)), contents(second.open(stage, other)))
            # Records of a run have its times and the names of its versions; data and weights have neither.
            assert [path for path in unlike if path.endswith((".parquet", ".safetensors"))] == []
    assert pointer.current(first.store) != pointer.current(operated.store)


@pytest.fixture(scope="module")
def served(operated: Operated) -> Operated:
    """The service, deployed as the guide says, with limits that a test can reach."""
    if pointer.current(operated.store) is None:
        with watched(operated) as found:
            assert operated.submit("nightly").wait(_WITHIN_S) == 0, operated.said("nightly")
        SEEN.update(found)
    config = yaml.safe_load((ROOT / "deploy" / "serve-laptop.yaml").read_text(encoding="utf-8"))
    config["http_options"] |= {"host": "127.0.0.1", "port": operated.proxies["head"]}
    (application,) = config["applications"]
    application["args"]["serving"] |= {
        "min_replicas": 2,
        "max_replicas": 2,
        "poll_s": 0.5,
        "rerank_ms": 0.001,
        "guard": {"max_body_bytes": 2_000_000, "requests_per_s": 20.0, "burst": 20},
    }
    # The workers' one CPU each is for the night; a proxy is where a replica is, and at the head.
    application["deployments"][0] |= {"max_replicas_per_node": 1}
    application["deployments"][0]["ray_actor_options"] |= {"num_cpus": 0, "resources": {"worker": 0.1}}
    file = operated.config.with_name("serve.yaml")
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    operated.ray("serve", "deploy", str(file), "-a", operated.cluster.dashboard)
    deadline = time.monotonic() + _WITHIN_S
    while not all(answers(port) for port in operated.proxies.values()):
        assert time.monotonic() < deadline, operated.ray("serve", "status", "-a", operated.cluster.dashboard)
        time.sleep(0.5)
    return operated


def ask(port: int, **wishes: Any) -> httpx.Response:
    """One query at one node's proxy."""
    body = {"history": ["item-3", "item-9"], "k": 5, **wishes}
    return httpx.post(f"http://127.0.0.1:{port}/v1/retrieve", json=body, trust_env=False, timeout=20)


def answers(port: int) -> bool:
    """Whether the proxy has a replica that answers."""
    try:
        return ask(port).status_code == 200
    except httpx.TransportError:
        return False


def test_the_service_answers_at_every_node_from_the_published_release(served: Operated) -> None:
    current = pointer.current(served.store)
    assert current is not None
    for port in served.proxies.values():
        answer = ask(port).json()
        assert answer["release"] == current.release
        assert len(answer["items"]) == 5


def test_a_night_by_submission_is_taken_up_by_the_service_without_a_restart(served: Operated) -> None:
    before = pointer.current(served.store)
    builders.write_events(served.config.parent / "log" / "events" / "grown.parquet", range_of(8_000, 8_200), 1_000, 77)
    assert served.submit("nightly").wait(_WITHIN_S) == 0, served.said("nightly")
    current = pointer.current(served.store)
    assert current is not None
    assert before is not None
    assert current.number == before.number + 1
    deadline = time.monotonic() + 60
    while {ask(port).json()["release"] for port in served.proxies.values() for _ in range(4)} != {current.release}:
        assert time.monotonic() < deadline
        time.sleep(0.5)


def range_of(first: int, end: int) -> Any:
    """User ids."""
    import numpy as np

    return np.arange(first, end)


def test_every_alert_and_every_panel_names_what_a_scrape_of_this_cluster_has(served: Operated) -> None:
    """What comes only with trouble is brought about: a broken release, too many requests, too little time."""
    port = served.proxies["head"]
    url = f"http://127.0.0.1:{port}"
    ask(port, diversity={"method": "mmr", "strength": 0.5}, k=200)
    assert ask(port, k=10, filter={"op": "in", "column": "category", "values": ["none"]}).json()["short"]
    httpx.post(
        f"{url}/v1/retrieve", json={"history": ["item-3"]}, headers={"x-request-timeout-ms": "0.001"}, trust_env=False
    )
    event = {"user_id": "u1", "item_id": "item-3"}
    for one in served.proxies.values():
        httpx.post(f"http://127.0.0.1:{one}/v1/events", json={"events": [event]}, trust_env=False)
    with httpx.Client(trust_env=False) as client:
        assert 429 in {client.post(f"{url}/v1/retrieve", json={"history": []}).status_code for _ in range(1_500)}
    broken = broken_release(served)
    wanted = metrics.seen()
    deadline = time.monotonic() + _SCRAPED_WITHIN_S
    while wanted - SEEN:
        SEEN.update(served.scraped())
        assert time.monotonic() < deadline, f"no node has {sorted(wanted - SEEN)}"
        time.sleep(1)
    served.store.delete(broken)
    while not all(answers(one) for one in served.proxies.values()):  # once the caller may ask again
        assert time.monotonic() < deadline
        time.sleep(0.5)


def broken_release(served: Operated) -> str:
    """Publish a release that is not there, and return the path of the pointer."""
    number = pointer.current(served.store).number + 1  # type: ignore[union-attr]
    path = f"{pointer.FOLDER}/{number:06d}.json"
    assert served.store.create(path, json.dumps({"release": "20990101T000000000-0123456789ab"}).encode())
    return path


def test_the_service_goes_on_while_the_head_is_lost_and_the_head_comes_back_with_its_state(served: Operated) -> None:
    """Nobody deploys anything anew: the state is in the head's store, and replicas answer meanwhile."""
    failed: list[str] = []
    count = 0
    ended = threading.Event()

    def keep_asking() -> None:
        nonlocal count
        while not ended.wait(0.5):
            for name in ("w1", "w2"):
                try:
                    status = ask(served.proxies[name]).status_code
                except httpx.TransportError as error:
                    failed.append(f"{name}: {error!r}")
                else:
                    count += 1
                    if status != 200:
                        failed.append(f"{name}: {status}")

    thread = threading.Thread(target=keep_asking)
    thread.start()
    try:
        time.sleep(3)
        processes.kill(served.cluster.leaders["head"])
        time.sleep(5)
        during = count
        assert not answers(served.proxies["head"])
        deadline = time.monotonic() + _WITHIN_S
        again = served.cluster.start_head("head-1")
        while not answers(served.proxies["head"]):
            assert time.monotonic() < deadline, "the head's proxy does not come back"
            if again.poll() is not None:  # as on a machine that is too busy; an operator starts it once more
                again = served.cluster.start_head(f"head-{len(served.cluster.leaders)}")
            time.sleep(0.5)
        while "RUNNING" not in served.ray("serve", "status", "-a", served.cluster.dashboard):
            assert time.monotonic() < deadline, "the application does not come back"
            time.sleep(0.5)
        time.sleep(3)
        ended.set()
        thread.join()
        assert failed == []
        assert count > during > 0
    finally:
        ended.set()
        thread.join()
