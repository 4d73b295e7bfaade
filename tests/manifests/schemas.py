"""Objections of a schema to an object, with unknown fields among them."""

from __future__ import annotations

import functools
from typing import Any

import jsonschema
import kubernetes_validate

from tests.manifests import kuberay
from tests.manifests.builds import Manifest, pod_templates

KUBERNETES = "1.33"
"""The oldest minor version that the manifests are for."""

_TEXT = {"type": "string"}
_TEXTS = {"type": "array", "items": _TEXT}
_WORDS = {"type": "object", "additionalProperties": _TEXT}


def _closed(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _listed(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item}


_SELECTOR = _closed(
    matchLabels=_WORDS,
    matchExpressions=_listed(_closed(("key", "operator"), key=_TEXT, operator=_TEXT, values=_TEXTS)),
)
_RULE = _closed(("expr",), alert=_TEXT, record=_TEXT, expr=_TEXT, labels=_WORDS, annotations=_WORDS, **{"for": _TEXT})
_SPECS = {
    # Of the Prometheus operator, monitoring.coreos.com/v1: the fields that are used here.
    "PodMonitor": _closed(
        ("selector", "podMetricsEndpoints"),
        selector=_SELECTOR,
        podMetricsEndpoints=_listed(
            _closed(
                port=_TEXT,
                path=_TEXT,
                interval={"type": "string", "pattern": r"^\d+(ms|s|m|h)$"},
                relabelings=_listed(_closed(sourceLabels=_TEXTS, targetLabel=_TEXT, action=_TEXT, regex=_TEXT)),
            )
        ),
    ),
    "PrometheusRule": _closed(
        ("groups",), groups=_listed(_closed(("name", "rules"), name=_TEXT, interval=_TEXT, rules=_listed(_RULE)))
    ),
    # Of Kueue, kueue.x-k8s.io/v1beta1: the fields that are used here.
    "ClusterQueue": _closed(
        namespaceSelector=_SELECTOR,
        queueingStrategy={"enum": ["StrictFIFO", "BestEffortFIFO"]},
        preemption=_closed(withinClusterQueue={"enum": ["Never", "LowerPriority", "LowerOrNewerEqualPriority"]}),
        resourceGroups=_listed(
            _closed(
                ("coveredResources", "flavors"),
                coveredResources=_TEXTS,
                flavors=_listed(
                    _closed(
                        ("name", "resources"),
                        name=_TEXT,
                        resources=_listed(_closed(("name", "nominalQuota"), name=_TEXT, nominalQuota=_TEXT)),
                    )
                ),
            )
        ),
    ),
    "LocalQueue": _closed(("clusterQueue",), clusterQueue=_TEXT),
    "ResourceFlavor": _closed(),
}


@functools.lru_cache
def _kuberay(kind: str) -> Any:
    tree = kuberay.committed()
    return jsonschema.Draft7Validator({**tree["kinds"][kind], "definitions": tree["definitions"]})


def complaints(manifest: Manifest) -> list[str]:
    """What the schema of the object's kind has against it; one line at most where the kind is Kubernetes' own."""
    kind = manifest["kind"]
    if kind in kuberay.KINDS:
        found = [f"{error.json_path}: {error.message}" for error in _kuberay(kind).iter_errors(manifest)]
        for where, template in pod_templates(manifest):
            wrapped = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "t"}, "template": template}
            found += [f"{where}: {line}" for line in _kubernetes(wrapped)]
        return found
    if kind in _SPECS:
        whole = _closed(
            ("apiVersion", "kind", "metadata"),
            apiVersion=_TEXT,
            kind=_TEXT,
            metadata={"type": "object"},
            spec=_SPECS[kind],
        )
        return [
            f"{error.json_path}: {error.message}" for error in jsonschema.Draft7Validator(whole).iter_errors(manifest)
        ]
    return _kubernetes(manifest)


def _kubernetes(manifest: Manifest) -> list[str]:
    try:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{error.json_path}: {error.message}"]
    return []
