"""Commands for clusters: ``raycl launch`` on Kubernetes, and ``raycl doctor``."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Annotated

import typer

from raycl import config_file
from raycl.cli_options import AsJson, ConfigPath, Overrides
from raycl.console import Screen
from raycl.errors import InputError


def launch(
    template: Annotated[
        str, typer.Argument(metavar="TEMPLATE", help="Name of a suspended RayJob, such as raycl-train.")
    ],
    overrides: Overrides = None,
    wait: Annotated[bool, typer.Option("--wait", help="Until the run is done; ends with 1 where it failed.")] = False,
    poll_s: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks at the run.")] = 15.0,
    api: Annotated[str | None, typer.Option(help="Where 'kubectl proxy' listens; by default that of this pod.")] = None,
    namespace: Annotated[str | None, typer.Option(help="Of the template; by default that of this pod.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run a dated copy of a RayJob on Kubernetes; of two launches of one night the second finds the first."""
    from raycl.kubernetes import launch as launching
    from raycl.kubernetes.api import Api
    from raycl.kubernetes.rayjob import Owner

    if (api is None) != (namespace is None):
        raise InputError("--api and --namespace go together: give both, or neither in a pod")
    cluster = Api.at(api, namespace) if api is not None and namespace is not None else Api.within()
    by, uid = os.environ.get("RAYCL_LAUNCHED_BY"), os.environ.get("RAYCL_LAUNCHED_BY_UID")
    owner = Owner(by, uid) if by and uid else None
    screen = Screen(as_json=as_json)
    name, created = launching.launch(cluster, template, datetime.now(UTC), owner=owner, overrides=overrides or ())
    screen.say(f"{name}: {'created' if created else 'was there already'}")
    state = launching.wait(cluster, name, poll_s).state if wait else "running"
    if as_json:
        screen.json({"name": name, "created": created, "state": state})


def doctor(config: ConfigPath, overrides: Overrides = None, as_json: AsJson = False) -> int:
    """Look at every node of the cluster before a run, and say what to change; ends with 1 where something must."""
    from raycl import doctor as checks
    from raycl import ray_doctor

    loaded, screen = config_file.load(config, overrides or ()), Screen(as_json=as_json)
    findings = checks.examine(ray_doctor.look(loaded), loaded)
    if as_json:
        screen.json({"fit": checks.fit(findings), "checks": [vars(finding) for finding in findings]})
    else:
        for finding in findings:
            remedy = f"\n{'':14}-> {finding.remedy}" if finding.remedy else ""
            screen.say(f"{finding.check:<13} {finding.state}: {finding.told}{remedy}")
    return 0 if checks.fit(findings) else 1
