"""``raycl prune``: fewer pairs, towers, evaluations and encoded words in a workspace."""

from __future__ import annotations

from typing import Annotated

import typer

from raycl import config_file, journey
from raycl.cli_options import AsJson, ConfigPath, Overrides
from raycl.console import Screen


def prune(
    config: ConfigPath,
    overrides: Overrides = None,
    keep: Annotated[int, typer.Option(min=1, help="How many of the newest versions of each stage are kept.")] = 1,
    grace_s: Annotated[
        float, typer.Option(min=0.0, help="Seconds since a version was finished within which it is kept.")
    ] = 86_400.0,
    pin: Annotated[list[str] | None, typer.Option(help="Keep this version and what it was made from too.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove pairs, towers, evaluations and encoded words that no release and no newest run refers to.

    Releases go by 'raycl release prune', which comes first. Nothing goes while a run is at work.
    """
    from raycl import prune as pruning

    loaded, screen = config_file.load(config, overrides or ()), Screen(as_json=as_json)
    workspace = journey.workspace(loaded)
    found = pruning.run(loaded, workspace, keep, grace_s, pin or (), dry_run=dry_run)
    gone = sum(one.num_bytes for one in found.removed)
    if as_json:
        removed = [{"stage": one.stage, "version": one.name, "bytes": one.num_bytes} for one in found.removed]
        kept = {one.name: found.reasons[one.name] for one in found.kept}
        screen.json({"kept": kept, "removed": removed, "bytes": gone, "dry_run": dry_run})
        return
    told = [
        {"stage": one.stage, "version": one.name, "bytes": f"{one.num_bytes:,}", "reason": found.reasons[one.name]}
        for one in found.kept
    ]
    screen.rows("kept", told)
    verb = "would remove" if dry_run else "removed"
    for one in found.removed:
        screen.say(f"{verb} {one.stage} {one.name} ({one.num_bytes:,} bytes)")
    screen.say(f"{verb} {gone:,} bytes in {len(found.removed)} versions of {workspace.store.uri}")
