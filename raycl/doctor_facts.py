"""What one node of a cluster is and can, as plain values that cross between processes."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from raycl import environment
from raycl.errors import RayclError
from raycl.storage.store import Store

PACKAGES = ("ray", "torch", "numpy", "pyarrow", "polars", "s3fs")
"""Packages that must be the same everywhere, since their objects and files go from node to node."""
_SHARED_MEMORY = Path("/dev", "shm")


Place = tuple[str, Literal["read", "create"]]
"""A URI that must be readable, or where files can be created once and only once."""


@dataclass(frozen=True)
class Node:
    """One node, as a task on it found it."""

    name: str
    """Address and role, for people."""
    token: bool
    """Whether it takes part only with who has the cluster's token."""
    versions: Mapping[str, str]
    """By package; ``python``, ``raycl`` and ``faiss`` are among them, and what is not installed is ``none``."""
    environment: Mapping[str, str]
    """Variables that decide how fast nodes are, as far as they are set."""
    clock_s: float
    """Seconds since 1970, by the node's clock, less those of whoever asks."""
    storage: Mapping[str, str]
    """By field of the config: why a place cannot be used, or nothing."""
    ray_gpus: float
    """GPUs that Ray gives out."""
    torch_gpus: int
    faiss_gpus: int
    object_store_bytes: int
    shared_memory_bytes: int
    memory_bytes: int
    spill_folder: str
    spill_bytes: int
    """Of the disk that objects are spilled to."""
    spill_free_bytes: int


def describe(
    name: str,
    places: Mapping[str, Place],
    *,
    token: bool,
    asked_s: float,
    ray_gpus: float,
    object_store_bytes: int,
    memory_bytes: int,
    spill_folder: str,
) -> Node:
    """The node that this process runs on; what Ray says of it is given.

    ``places``: by field of the config.
    """
    disk = shutil.disk_usage(_nearest(Path(spill_folder)))
    shared = shutil.disk_usage(_SHARED_MEMORY).total if _SHARED_MEMORY.is_dir() else 0
    return Node(
        name=name,
        token=token,
        versions=_versions(),
        environment={key: os.environ[key] for key in environment.FAST if key in os.environ},
        clock_s=time.time() - asked_s,
        storage={field: _problem(uri, need) for field, (uri, need) in places.items()},
        ray_gpus=ray_gpus,
        torch_gpus=_torch_gpus(),
        faiss_gpus=_faiss_gpus(),
        object_store_bytes=object_store_bytes,
        shared_memory_bytes=shared,
        memory_bytes=memory_bytes,
        spill_folder=spill_folder,
        spill_bytes=disk.total,
        spill_free_bytes=disk.free,
    )


def _versions() -> dict[str, str]:
    from raycl import __version__

    found = {"python": platform.python_version(), "raycl": __version__}
    for package in (*PACKAGES, "faiss-cpu", "faiss-gpu"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "none"
    both = {found.pop("faiss-cpu"), found.pop("faiss-gpu")} - {"none"}
    found["faiss"] = " and ".join(sorted(both)) or "none"
    return found


def _problem(uri: str, need: Literal["read", "create"]) -> str:
    """Why the place cannot be used as it must, or nothing."""
    store = Store(uri)
    try:
        if need == "read":
            return "" if store.exists("") else "there is nothing"
        return "" if _creates_once(store) else "it overwrites a file that was to be created only once (If-None-Match)"
    except (RayclError, OSError) as error:
        said = " ".join(str(error).split())
        return said if said not in ("", "None") else f"{type(error).__name__}; is there such a bucket or folder?"


def _creates_once(store: Store) -> bool:
    probe = f".doctor-{uuid.uuid4().hex}"
    first, second = store.create(probe, b"1"), store.create(probe, b"2")
    kept = store.read(probe)
    store.delete(probe)
    return first and not second and kept == b"1"


def _torch_gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _faiss_gpus() -> int:
    from raycl.index import build

    return build.num_gpus()


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next(one for one in (folder, *folder.parents) if one.exists())
