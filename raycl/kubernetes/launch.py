"""From a template to a run, and to its end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import datetime

from raycl.errors import RayclError
from raycl.kubernetes import api, rayjob
from raycl.kubernetes.api import Api
from raycl.kubernetes.rayjob import Owner, Progress

log = logging.getLogger(__name__)


def launch(
    cluster: Api,
    template: str,
    now: datetime,
    *,
    owner: Owner | None = None,
    overrides: Sequence[str] = (),
) -> tuple[str, bool]:
    """Create a run of ``template``: its name, and False where it was there, as at a second launch of one night."""
    name = rayjob.run_name(template, now, owner.name if owner else None)
    made = rayjob.copy_of(cluster.get(template), name, overrides=overrides, owner=owner)
    return name, cluster.create(made)


def wait(cluster: Api, name: str, poll_s: float, sleep: Callable[[float], None] = time.sleep) -> Progress:
    """Look at the run every ``poll_s`` seconds until it is done; RayclError, in KubeRay's words, where it failed."""
    told = ""
    while True:
        found = rayjob.progress(api.patiently(lambda: cluster.get(name), poll_s, sleep=sleep))
        if found.told != told:
            told = found.told
            log.info("%s", told)
        if found.state == "failed":
            raise RayclError(f"{told}: see 'kubectl describe rayjob {name}' and the logs of its submitter pod")
        if found.state == "done":
            return found
        sleep(poll_s)
