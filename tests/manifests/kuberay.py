"""The schemas of KubeRay's kinds, and the compact extract of them that is committed.

``kuberay-1.7.0.json`` holds the fields of RayJob and RayService as the CustomResourceDefinitions of KubeRay v1.7.0
have them (github.com/ray-project/kuberay, ray-operator/config/crd/bases, Apache-2.0): types, enumerations and bounds,
without descriptions. Pod templates are Kubernetes' own and stand there as a reference; some parts that no manifest here
uses are left out, and so refused. Made anew from the definitions by ``python -m tests.manifests.kuberay FOLDER``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.manifests.builds import ROOT, documents

EXTRACT = Path(__file__).parent / "kuberay-1.7.0.json"
KINDS = ("RayJob", "RayService")
_LEFT_OUT = {"networkPolicy", "historyServerOptions", "tlsOptions", "headService", "serveService", "ingressOptions"}
_CLUSTER = {"rayClusterSpec", "rayClusterConfig"}
_TEMPLATES = {"template", "submitterPodTemplate"}


def folder() -> Path:
    """Where the definitions, and an API server for them, lie; the test is skipped where they do not."""
    found = Path(os.environ.get("RAYCL_K8S", ROOT.parent / "shared" / "k8s"))
    if not (found / "crds").is_dir():
        pytest.skip(f"needs KubeRay's CustomResourceDefinitions in {found}/crds; name their parent folder in RAYCL_K8S")
    return found


def definitions(crds: Path) -> dict[str, Any]:
    """The definitions in a folder, by kind."""
    found = [one for path in sorted(crds.glob("*.yaml")) for one in documents(path.read_text(encoding="utf-8"))]
    return {one["spec"]["names"]["kind"]: one for one in found}


def extract(crds: Path) -> dict[str, Any]:
    """The compact schemas of ``KINDS``, with the cluster that both hold once."""
    shared: dict[str, Any] = {"PodTemplate": {"type": "object"}}
    kinds = {}
    for kind in KINDS:
        (version,) = [one for one in definitions(crds)[kind]["spec"]["versions"] if one["name"] == "v1"]
        schema = _compact(version["schema"]["openAPIV3Schema"], shared)
        del schema["properties"]["status"]
        schema["properties"]["metadata"] = {"type": "object"}
        kinds[kind] = schema
    return {"kinds": kinds, "definitions": shared}


def _compact(node: Any, shared: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_compact(part, shared) for part in node]
    if not isinstance(node, dict):
        return node
    made = {}
    for key, part in node.items():
        if key == "description" and isinstance(part, str):
            continue
        made[key] = _properties(part, shared) if key == "properties" else _compact(part, shared)
    opened = "additionalProperties" in made or made.get("x-kubernetes-preserve-unknown-fields")
    if made.get("type") == "object" and not opened:
        made["additionalProperties"] = False  # as the strict check of the API server has it
    return made


def _properties(fields: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, field in fields.items():
        if name in _LEFT_OUT:
            continue
        if name in _TEMPLATES and "spec" in field.get("properties", {}):
            made[name] = {"$ref": "#/definitions/PodTemplate"}
        elif name in _CLUSTER:
            compact = _compact(field, shared)
            assert shared.setdefault("RayCluster", compact) == compact
            made[name] = {"$ref": "#/definitions/RayCluster"}
        else:
            made[name] = _compact(field, shared)
    return made


def committed() -> dict[str, Any]:
    """The extract of the repository."""
    return dict(json.loads(EXTRACT.read_text(encoding="utf-8")))


def text(tree: dict[str, Any]) -> str:
    """The extract as it is written."""
    return json.dumps(tree, separators=(",", ":"), sort_keys=True) + "\n"


if __name__ == "__main__":
    EXTRACT.write_text(text(extract(Path(sys.argv[1]))), encoding="utf-8")
