"""RayJobs: a template, the dated copy of it that runs, and how far that is."""

from __future__ import annotations

import copy
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from raycl.errors import InputError

QUEUE = "raycl-queue"
"""Annotation of a template: the Kueue queue that its copies wait in. Kueue's own label would start the template."""
KUEUE_LABEL = "kueue.x-k8s.io/queue-name"
TEMPLATE_LABEL = "raycl-template"
"""Label of a copy: the template that it was made from."""
NAME_LIMIT = 47
"""Characters that KubeRay 1.7 allows in the name of a RayJob."""

_CRON_JOB = re.compile(r".*-(\d{8,})")
"""A Job that a CronJob made: its name ends in the minutes from 1970 to the time that it was scheduled for."""
_FAILED = {"Failed", "ValidationFailed"}


@dataclass(frozen=True)
class Owner:
    """The Job that launches a run: with it goes the run, so a CronJob's history limits are those of its runs."""

    name: str
    uid: str


@dataclass(frozen=True)
class Progress:
    """How far a run is, and one line for people."""

    state: Literal["running", "done", "failed"]
    told: str


def run_name(template: str, now: datetime, launched_by: str | None = None) -> str:
    """The dated name of a run, such as ``raycl-nightly-20261121-0200``.

    It has the time that a CronJob scheduled the Job ``launched_by`` for, so that every try of one night has one name;
    else the minute of ``now``. Raises InputError where that is longer than KubeRay allows.
    """
    found = _CRON_JOB.fullmatch(launched_by or "")
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    moment = epoch + timedelta(minutes=int(found[1])) if found else now.astimezone(UTC)
    name = f"{template}-{moment:%Y%m%d-%H%M}"
    if len(name) > NAME_LIMIT:
        raise InputError(
            f"RayJob {name} has {len(name)} characters and KubeRay allows {NAME_LIMIT}: give the template a name of"
            f" {NAME_LIMIT - len(name) + len(template)} or fewer"
        )
    return name


def copy_of(
    template: dict[str, Any], name: str, *, overrides: Sequence[str] = (), owner: Owner | None = None
) -> dict[str, Any]:
    """The RayJob ``name`` that runs what ``template`` says, each of ``overrides`` put behind it with ``--set``.

    In a queue of Kueue it is created suspended, and Kueue lets it run. Raises InputError for a RayJob that is no
    template: a copy of one that runs would be a second of the same.
    """
    found, spec = template["metadata"], copy.deepcopy(template["spec"])
    if spec.get("suspend") is not True:
        raise InputError(f"RayJob {found['name']} is no template: spec.suspend is not true, so it runs itself")
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": found["namespace"],
        "labels": {**found.get("labels", {}), TEMPLATE_LABEL: found["name"]},
    }
    queue = found.get("annotations", {}).get(QUEUE)
    if queue:
        metadata["labels"][KUEUE_LABEL] = queue
    if owner is not None:
        metadata["ownerReferences"] = [
            {"apiVersion": "batch/v1", "kind": "Job", "name": owner.name, "uid": owner.uid, "controller": False}
        ]
    words = [word for override in overrides for word in ("--set", override)]
    spec["entrypoint"] = " ".join([spec["entrypoint"], *map(shlex.quote, words)])
    spec["suspend"] = bool(queue)
    return {"apiVersion": template["apiVersion"], "kind": template["kind"], "metadata": metadata, "spec": spec}


def progress(run: dict[str, Any]) -> Progress:
    """How far ``run`` is, by the status that KubeRay wrote into it; without one it has not begun."""
    status = run.get("status") or {}
    deployment, job = status.get("jobDeploymentStatus", ""), status.get("jobStatus", "")
    told = f"{run['metadata']['name']}: {deployment or 'not begun'}{f', job {job}' if job else ''}"
    said = "; ".join(part for part in (status.get("reason"), status.get("message")) if part)
    if said:
        told += f" ({said})"
    if deployment in _FAILED or (deployment == "Complete" and job != "SUCCEEDED"):
        return Progress("failed", told)
    return Progress("done" if deployment == "Complete" else "running", told)
