"""What `kubectl apply -k` would send: every overlay of `k8s/`, built."""

from __future__ import annotations

import copy
import functools
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
OVERLAYS = tuple(sorted(path.parent.name for path in (ROOT / "k8s" / "overlays").glob("*/kustomization.yaml")))
_PARSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Manifest = dict[str, Any]


@functools.lru_cache
def _text(overlay: str) -> str:
    folder = str(ROOT / "k8s" / "overlays" / overlay)
    if shutil.which("kubectl"):
        command = ["kubectl", "kustomize", folder]
    elif shutil.which("kustomize"):
        command = ["kustomize", "build", folder]
    else:
        pytest.skip("needs kubectl or kustomize on the PATH, to build the manifests")
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@functools.lru_cache
def _parsed(overlay: str) -> list[Manifest]:
    return list(documents(_text(overlay)))


def documents(text: str) -> Iterator[Manifest]:
    """The documents of a YAML text; the parser in C is ten times as fast."""
    parser = _PARSER(text)
    while parser.check_data():
        yield parser.get_data()


def built(overlay: str) -> list[Manifest]:
    """The overlay's objects, the caller's own."""
    return copy.deepcopy(_parsed(overlay))


def of_kind(overlay: str, kind: str) -> list[Manifest]:
    """The overlay's objects of one kind."""
    return [found for found in built(overlay) if found["kind"] == kind]


def the(overlay: str, kind: str, name: str) -> Manifest:
    """One object of the overlay; a ConfigMap by its name without the hash."""
    (found,) = [
        one
        for one in of_kind(overlay, kind)
        if one["metadata"]["name"] == name
        or (kind == "ConfigMap" and one["metadata"]["name"][: -len("-0123456789")] == name)
    ]
    return found


def cluster(manifest: Manifest) -> Manifest:
    """The RayCluster within a RayJob or a RayService."""
    spec = manifest["spec"]
    found: Manifest = spec["rayClusterSpec"] if "rayClusterSpec" in spec else spec["rayClusterConfig"]
    return found


def groups(manifest: Manifest) -> list[Manifest]:
    """The head group and the worker groups."""
    found = cluster(manifest)
    return [found["headGroupSpec"], *found.get("workerGroupSpecs", [])]


def pod_templates(manifest: Manifest) -> Iterator[tuple[str, Manifest]]:
    """Every pod template within an object, and where it is."""
    spec = manifest.get("spec", {})
    match manifest["kind"]:
        case "RayJob" | "RayService":
            for group in groups(manifest):
                yield group.get("groupName", "head"), group["template"]
            if "submitterPodTemplate" in spec:
                yield "submitter", spec["submitterPodTemplate"]
        case "CronJob":
            yield "job", spec["jobTemplate"]["spec"]["template"]
        case "StatefulSet" | "Deployment" | "Job":
            yield "pod", spec["template"]


def resource_bytes(quantity: str) -> int:
    """Bytes of a quantity such as ``8Gi``."""
    units = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
    return int(quantity[:-2]) * units[quantity[-2:]] if quantity[-2:] in units else int(quantity)


def cpus(quantity: str) -> float:
    """CPUs of a quantity such as ``500m``."""
    return int(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)
