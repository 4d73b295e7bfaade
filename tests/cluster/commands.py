"""The `raycl` command as a process of its own, with what it used."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.measure import Run, run
from raycl.config_file import load
from raycl.storage.store import Store
from raycl.storage.versions import Version, Workspace
from tests.cluster import builders
from tests.cluster.outputs import only_pairs

CPUS = sorted(os.sched_getaffinity(0))[:2]


def synth(folder: Path, rows: int, **options: int) -> None:
    """Write a log with `raycl synth`, on two CPUs."""
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = ["taskset", "-c", ",".join(map(str, CPUS)), sys.executable, "-m", "raycl", "synth", str(folder)]
    subprocess.run([*command, "--rows", str(rows), *words], check=True, capture_output=True)


def pairs(folder: Path, tree: Mapping[str, Any], scratch: Path, **env: str) -> tuple[Version, Run]:
    """Run `raycl pairs` with the config ``tree`` on two CPUs, Ray's session under ``scratch``.

    Returns the one version that its workspace then has.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = builders.write_config(folder / "raycl.yaml", dict(tree))
    command = [sys.executable, "-m", "raycl", "pairs", str(config), "--json"]
    used = run(command, CPUS, {"RAY_TMPDIR": str(scratch), "TMPDIR": str(scratch), **env})
    return only_pairs(Workspace(Store(load(config).workspace))), used


def megabytes(used: Run) -> int:
    """Peak of the proportional set sizes of all its processes."""
    return used.peak_bytes // 1_000_000
