"""Whether a cluster is fit for a run: pure checks of what its nodes found, each with what to change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from raycl import environment
from raycl.config import Config
from raycl.doctor_facts import Node
from raycl.storage import lease

SPILL_STOPS = 0.95
"""Share of a disk from which on Ray spills nothing more (its ``local_fs_capacity_threshold``)."""
_STORE_LEAST = 0.05
"""Share of a node's memory that its object store should have at least; Ray's own choice is 0.3."""


@dataclass(frozen=True)
class Finding:
    """One check: ``bad`` keeps a run from ending well, ``doubtful`` makes it slow or unsafe."""

    check: str
    state: Literal["good", "doubtful", "bad"]
    told: str
    remedy: str = ""


@dataclass(frozen=True)
class Cluster:
    """What all checks look at."""

    nodes: Sequence[Node]
    cpus: float


def examine(cluster: Cluster, config: Config) -> list[Finding]:
    """Every check, in the order in which what it finds should be mended."""
    return [check(cluster, config) for check in _CHECKS]


def fit(findings: Iterable[Finding]) -> bool:
    """Whether nothing is bad."""
    return all(finding.state != "bad" for finding in findings)


def _versions(cluster: Cluster, _: Config) -> Finding:
    first, *others = cluster.nodes
    told = []
    for package in sorted(first.versions):
        found = {node.name: node.versions.get(package, "none") for node in cluster.nodes}
        if len(set(found.values())) > 1:
            told.append(f"{package} is " + ", ".join(f"{version} on {name}" for name, version in found.items()))
    if told:
        return Finding("versions", "bad", "; ".join(told), "start every node from one image or one requirements.lock")
    missing = sorted(package for package, version in first.versions.items() if version == "none")
    if missing:
        return Finding(
            "versions", "bad", f"{', '.join(missing)} not installed", "pip install 'raycl[cpu]' or 'raycl[gpu]'"
        )
    named = ", ".join(
        f"{package} {first.versions[package]}" for package in ("python", "ray", "raycl") if package in first.versions
    )
    return Finding("versions", "good", f"{1 + len(others)} node(s) with {named}")


def _clocks(cluster: Cluster, _: Config) -> Finding:
    """Leases of runs on two machines go by their clocks."""
    spread = max(node.clock_s for node in cluster.nodes) - min(node.clock_s for node in cluster.nodes)
    if spread >= lease.STALE_S / 2:
        worst = max(cluster.nodes, key=lambda node: abs(node.clock_s))
        return Finding(
            "clocks", "bad", f"clocks differ by {spread:.0f} s, that of {worst.name} most", "run NTP on every node"
        )
    return Finding("clocks", "good", f"clocks agree to {max(spread, 0.1):.1f} s")


def _storage(cluster: Cluster, config: Config) -> Finding:
    told = [
        f"{field} on {node.name}: {problem}"
        for node in cluster.nodes
        for field, problem in sorted(node.storage.items())
        if problem
    ]
    if not told:
        return Finding(
            "storage", "good", f"{config.workspace} is written and read from every node, each file created once"
        )
    if any("If-None-Match" in line for line in told):
        remedy = "use a store with conditional writes (AWS S3, Ceph RGW, MinIO): a publication could be lost"
    elif "://" in config.workspace:
        remedy = (
            "give every node the right to write, and the credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,"
            " AWS_ENDPOINT_URL)"
        )
    else:
        remedy = "mount the folder on every node, writable, or name s3://bucket/prefix"
    return Finding("storage", "bad", "; ".join(told), remedy)


def _gpus(cluster: Cluster, config: Config) -> Finding:
    for node in cluster.nodes:
        if node.ray_gpus > 0 and node.torch_gpus == 0:
            return Finding(
                "gpus",
                "bad",
                f"Ray gives out {node.ray_gpus:g} GPU(s) of {node.name} and torch sees none",
                "install torch with CUDA there, and a driver that fits it; or start the node with --num-gpus=0",
            )
        if node.torch_gpus > node.ray_gpus:
            return Finding(
                "gpus",
                "doubtful",
                f"torch sees {node.torch_gpus} GPU(s) on {node.name} and Ray gives out {node.ray_gpus:g}",
                f"start the node with --num-gpus={node.torch_gpus}",
            )
        if node.ray_gpus > 0 and node.faiss_gpus == 0 and config.index.use_gpu != "never":
            bad = config.index.use_gpu == "always"
            return Finding(
                "gpus",
                "bad" if bad else "doubtful",
                f"FAISS of {node.name} uses no GPU, so the index is built on CPUs",
                "pip uninstall faiss-cpu faiss-gpu, pip install 'raycl[gpu]'; or set index.use_gpu=never",
            )
    total = sum(node.ray_gpus for node in cluster.nodes)
    for field, use in (("train.use_gpu", config.train.use_gpu), ("index.use_gpu", config.index.use_gpu)):
        if use == "always" and total == 0:
            return Finding(
                "gpus", "bad", f"{field}=always and no node has a GPU", f"add GPU nodes, or set {field}=auto"
            )
    return Finding("gpus", "good", f"{total:g} GPU(s)" if total else "no GPUs, and none is asked for")


def _room(cluster: Cluster, config: Config) -> Finding:
    """Whether the fewest training workers start."""
    gpus = sum(node.ray_gpus for node in cluster.nodes)
    fewest = config.train.num_workers.min
    on_gpu = config.train.use_gpu == "always" or (config.train.use_gpu == "auto" and gpus >= fewest)
    have, what = (gpus, "GPUs") if on_gpu else (cluster.cpus, "CPUs")
    if have < fewest:
        return Finding(
            "room",
            "bad",
            f"train.num_workers wants at least {fewest} {what} and the cluster has {have:g}",
            f"add nodes, or set train.num_workers={max(int(have), 1)}",
        )
    return Finding("room", "good", f"{cluster.cpus:g} CPUs, {gpus:g} GPUs; training starts with {fewest} worker(s)")


def _object_store(cluster: Cluster, _: Config) -> Finding:
    for node in cluster.nodes:
        if node.object_store_bytes > node.shared_memory_bytes:
            return Finding(
                "object store",
                "bad",
                f"{_gigabytes(node.object_store_bytes)} on {node.name}, and /dev/shm has"
                f" {_gigabytes(node.shared_memory_bytes)}: objects would go through the disk",
                "mount a larger /dev/shm (docker run --shm-size, an emptyDir of medium Memory), or start the node with"
                f" --object-store-memory={node.shared_memory_bytes * 9 // 10}",
            )
    small = [node for node in cluster.nodes if node.object_store_bytes < _STORE_LEAST * node.memory_bytes]
    if small:
        return Finding(
            "object store",
            "doubtful",
            f"{_gigabytes(small[0].object_store_bytes)} on {small[0].name}, of {_gigabytes(small[0].memory_bytes)}",
            f"start the node with --object-store-memory={int(0.3 * small[0].memory_bytes)}, or without the option",
        )
    return Finding(
        "object store", "good", f"{_gigabytes(sum(node.object_store_bytes for node in cluster.nodes))} in all"
    )


def _spilling(cluster: Cluster, _: Config) -> Finding:
    for node in cluster.nodes:
        used = 1 - node.spill_free_bytes / max(node.spill_bytes, 1)
        where = f"{node.spill_folder} of {node.name}"
        remedy = "free the disk, or start the node with --object-spilling-directory on another"
        if used >= SPILL_STOPS:
            return Finding("disk", "bad", f"the disk under {where} is {used:.0%} full and Ray stops at 95%", remedy)
        room = node.spill_free_bytes - (1 - SPILL_STOPS) * node.spill_bytes
        if room < node.object_store_bytes:
            return Finding(
                "disk",
                "doubtful",
                f"{where} has room for {_gigabytes(max(room, 0))} until it is 95% full, less than one object store",
                remedy,
            )
    return Finding("disk", "good", "every node has room to spill its object store")


def _token(cluster: Cluster, _: Config) -> Finding:
    open_to_all = [node.name for node in cluster.nodes if not node.token]
    if not open_to_all:
        return Finding("token", "good", "every node asks for the cluster's token")
    return Finding(
        "token",
        "bad",
        f"{', '.join(open_to_all)}: no token is asked for, and whoever reaches Ray's ports runs what he likes",
        "start every node with RAY_AUTH_MODE=token and the same RAY_AUTH_TOKEN_PATH",
    )


def _environment(cluster: Cluster, _: Config) -> Finding:
    for node in cluster.nodes:
        other = {name: node.environment.get(name, "unset") for name in environment.FAST}
        slow = [f"{name} is {other[name]}" for name, value in environment.FAST.items() if other[name] != value]
        if slow:
            return Finding(
                "environment",
                "doubtful",
                f"on {node.name} {', '.join(slow)}",
                "start every node with deploy/ray.env: 'set -a; . deploy/ray.env; set +a' before 'ray start'",
            )
    return Finding("environment", "good", "as deploy/ray.env has it")


_CHECKS: tuple[Callable[[Cluster, Config], Finding], ...] = (
    _versions,
    _clocks,
    _storage,
    _token,
    _gpus,
    _room,
    _object_store,
    _spilling,
    _environment,
)


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
