"""Each check of the doctor, with the cluster that it is content with and the one that it is not."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raycl import cli, config_file, doctor, doctor_facts, environment
from raycl.config import Config
from raycl.doctor import Cluster, Finding
from raycl.doctor_facts import Node
from raycl.storage.store import Store
from tests.cluster import builders

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = dict.fromkeys(("python", "raycl", "faiss", *doctor_facts.PACKAGES), "1")
NODE = Node(
    name="10.0.0.1 (head)",
    token=True,
    versions=VERSIONS,
    environment=dict(environment.FAST),
    clock_s=0.02,
    storage={"workspace": ""},
    ray_gpus=0.0,
    torch_gpus=0,
    faiss_gpus=0,
    object_store_bytes=8 * 10**9,
    shared_memory_bytes=10 * 10**9,
    memory_bytes=32 * 10**9,
    spill_folder="/spill",
    spill_bytes=10**12,
    spill_free_bytes=5 * 10**11,
)
GPU = {"ray_gpus": 2.0, "torch_gpus": 2, "faiss_gpus": 2}


def config(**changed: Any) -> Config:
    """A config with some values set, by dotted path."""
    tree = builders.config_tree(Path("/log"), "s3://bucket/shop")
    return config_file.check(
        config_file.apply_overrides(tree, [f"{path}={json.dumps(value)}" for path, value in changed.items()])
    )


def finding(check: str, *nodes: Node, given: Config | None = None, cpus: float = 8.0) -> Finding:
    """What one check finds."""
    (found,) = [one for one in doctor.examine(Cluster(nodes or (NODE,), cpus), given or config()) if one.check == check]
    return found


def other(**changed: Any) -> Node:
    """A second node that differs in this."""
    return replace(NODE, name="10.0.0.2 (worker)", **changed)


def test_a_cluster_in_order_is_fit() -> None:
    found = doctor.examine(Cluster((NODE, other()), 8.0), config())
    assert [one.state for one in found] == ["good"] * 9
    assert [one.remedy for one in found] == [""] * 9
    assert doctor.fit(found)


@pytest.mark.parametrize("package", [*VERSIONS])
def test_versions_that_differ_are_named_with_their_nodes(package: str) -> None:
    found = finding("versions", NODE, other(versions=VERSIONS | {package: "2"}))
    assert found.state == "bad"
    assert f"{package} is 1 on 10.0.0.1 (head), 2 on 10.0.0.2 (worker)" in found.told
    assert "one image" in found.remedy


def test_a_package_that_is_nowhere_is_missing() -> None:
    found = finding("versions", replace(NODE, versions=VERSIONS | {"faiss": "none"}))
    assert (found.state, found.told) == ("bad", "faiss not installed")
    assert "raycl[gpu]" in found.remedy


def test_clocks_that_leases_cannot_go_by_are_bad() -> None:
    assert finding("clocks", NODE, other(clock_s=29.0)).state == "good"
    found = finding("clocks", NODE, other(clock_s=-31.0))
    assert (found.state, "10.0.0.2" in found.told, "NTP" in found.remedy) == ("bad", True, True)


@pytest.mark.parametrize(
    ("problem", "workspace", "remedy"),
    [
        ("Access Denied", "s3://bucket/shop", "AWS_ACCESS_KEY_ID"),
        ("Permission denied", "/shared/shop", "mount the folder on every node"),
        ("it overwrites ... (If-None-Match)", "s3://bucket/shop", "conditional writes"),
    ],
)
def test_a_store_that_one_node_cannot_use_is_bad(problem: str, workspace: str, remedy: str) -> None:
    found = finding("storage", NODE, other(storage={"workspace": problem}), given=config(workspace=workspace))
    assert (found.state, found.told) == ("bad", f"workspace on 10.0.0.2 (worker): {problem}")
    assert remedy in found.remedy


def test_a_cluster_without_a_token_is_bad() -> None:
    found = finding("token", NODE, other(token=False))
    assert found.state == "bad"
    assert found.told.startswith("10.0.0.2 (worker): no token is asked for")
    assert "RAY_AUTH_MODE=token" in found.remedy


@pytest.mark.parametrize(
    ("changed", "setting", "state", "told", "remedy"),
    [
        (GPU, {}, "good", "2 GPU(s)", ""),
        (GPU | {"torch_gpus": 0}, {}, "bad", "torch sees none", "install torch with CUDA"),
        (GPU | {"ray_gpus": 0.0}, {}, "doubtful", "Ray gives out 0", "--num-gpus=2"),
        (GPU | {"faiss_gpus": 0}, {}, "doubtful", "FAISS of 10.0.0.2 (worker) uses no GPU", "faiss-gpu"),
        (GPU | {"faiss_gpus": 0}, {"index.use_gpu": "never"}, "good", "2 GPU(s)", ""),
        (GPU | {"faiss_gpus": 0}, {"index.use_gpu": "always"}, "bad", "uses no GPU", "raycl[gpu]"),
        ({}, {"train.use_gpu": "always"}, "bad", "train.use_gpu=always and no node", "train.use_gpu=auto"),
        ({}, {"index.use_gpu": "always"}, "bad", "index.use_gpu=always and no node", "add GPU nodes"),
    ],
)
def test_gpus_are_seen_by_ray_torch_and_faiss_alike(
    changed: dict[str, Any], setting: dict[str, Any], state: str, told: str, remedy: str
) -> None:
    found = finding("gpus", NODE, other(**changed), given=config(**setting))
    assert (found.state, told in found.told, remedy in found.remedy) == (state, True, True), found


def test_training_workers_that_find_no_room_are_bad() -> None:
    given = config(**{"train.num_workers": {"min": 4, "max": 8}, "train.global_batch_size": 840})
    assert finding("room", given=given, cpus=4.0).state == "good"
    found = finding("room", given=given, cpus=2.0)
    assert (found.state, found.remedy) == ("bad", "add nodes, or set train.num_workers=2")
    assert "at least 4 CPUs and the cluster has 2" in found.told
    on_gpus = config(**{"train.num_workers": 4, "train.use_gpu": "always", "train.global_batch_size": 840})
    assert "4 GPUs and the cluster has 2" in finding("room", other(**GPU), given=on_gpus).told


def test_an_object_store_that_shared_memory_does_not_hold_is_bad_and_a_tiny_one_doubtful() -> None:
    found = finding("object store", NODE, other(shared_memory_bytes=64 * 10**6))
    assert (found.state, "objects would go through the disk" in found.told) == ("bad", True)
    assert "--shm-size" in found.remedy
    assert "--object-store-memory=57600000" in found.remedy
    tiny = finding("object store", NODE, other(object_store_bytes=10**8))
    assert (tiny.state, "--object-store-memory=9600000000" in tiny.remedy) == ("doubtful", True)


def test_a_disk_on_which_ray_would_not_spill_is_bad_and_a_small_one_doubtful() -> None:
    found = finding("disk", NODE, other(spill_free_bytes=4 * 10**10))
    assert (found.state, "96% full" in found.told) == ("bad", True)
    assert "--object-spilling-directory" in found.remedy
    small = finding("disk", NODE, other(spill_free_bytes=57 * 10**9))
    assert (small.state, "room for 7.0 GB" in small.told) == ("doubtful", True)


def test_a_slow_environment_is_doubtful_and_named() -> None:
    found = finding("environment", NODE, other(environment={**environment.FAST, "GOMP_SPINCOUNT": "0"}))
    assert (found.state, "GOMP_SPINCOUNT is 0" in found.told, "deploy/ray.env" in found.remedy) == (
        "doubtful",
        True,
        True,
    )
    assert (ROOT / "deploy" / "ray.env").is_file()
    assert "RAY_worker_niceness is unset" in finding("environment", other(environment={})).told


def test_doubts_do_not_end_a_run_and_anything_bad_does() -> None:
    doubtful, bad = Finding("a", "doubtful", ""), Finding("b", "bad", "")
    assert doctor.fit([doubtful, doubtful])
    assert not doctor.fit([doubtful, bad])


def describe(folder: Path, workspace: str) -> Node:
    """This machine."""
    return doctor_facts.describe(
        "here",
        {"workspace": (workspace, "create"), "logs": (str(folder), "read"), "none": (str(folder / "none"), "read")},
        token=True,
        asked_s=0.0,
        ray_gpus=0.0,
        object_store_bytes=1,
        memory_bytes=1,
        spill_folder=str(folder / "not" / "there" / "yet"),
    )


def test_a_node_tells_what_it_has_and_leaves_nothing_in_the_store(tmp_path: Path) -> None:
    found = describe(tmp_path, str(tmp_path / "shop"))
    assert found.storage == {"workspace": "", "logs": "", "none": "there is nothing"}
    assert Store(str(tmp_path / "shop")).files() == []
    assert all(re.match(r"\d+\.\d+", version) for version in found.versions.values()), found.versions
    assert found.spill_bytes > found.spill_free_bytes > 0
    assert abs(found.clock_s) > 10**9  # asked at 0


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert "directory" in describe(tmp_path, str(tmp_path / "file" / "shop")).storage["workspace"]


def test_s3_is_tried_for_conditional_writes(s3_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert describe(tmp_path, s3_store.uri).storage["workspace"] == ""
    assert s3_store.files() == []
    monkeypatch.setattr(Store, "create", lambda self, path, content: self.write(path, content) is None)
    assert "If-None-Match" in describe(tmp_path, s3_store.uri).storage["workspace"]
    assert "bucket" in describe(tmp_path, "s3://no-such-bucket-there/shop").storage["workspace"].lower()


@pytest.mark.parametrize(("free", "code"), [(5 * 10**11, 0), (0, 1)])
def test_the_command_ends_with_1_where_something_must_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], free: int, code: int
) -> None:
    from raycl import ray_doctor

    monkeypatch.setattr(ray_doctor, "look", lambda _: Cluster((replace(NODE, spill_free_bytes=free),), 8.0))
    path = builders.write_config(tmp_path / "c.yaml", builders.config_tree(tmp_path, str(tmp_path / "w")))
    for words in ([], ["--json"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(["doctor", str(path), *words])
        assert ended.value.code == code
    text, _, line = capsys.readouterr().out.strip().rpartition("\n")
    told = json.loads(line)
    assert told["fit"] is (code == 0)
    assert [one["check"] for one in told["checks"] if one["state"] == "bad"] == (["disk"] if code else [])
    for one in told["checks"]:
        assert f"{one['check']:<13} {one['state']}: {one['told']}" in text
        assert not one["remedy"] or f"-> {one['remedy']}" in text


def test_the_connected_ray_is_looked_at_node_by_node(ray_local: None, tmp_path: Path) -> None:
    from raycl import ray_doctor

    given = config(workspace=str(tmp_path / "shop"))
    found = ray_doctor.look(given)
    (node,) = found.nodes
    assert (found.cpus, node.token, node.storage) == (2.0, False, {"workspace": ""})
    assert abs(node.clock_s) < 60
    assert node.object_store_bytes <= 200_000_000
    assert {one.check for one in doctor.examine(found, given) if one.state == "bad"} <= {"token"}
