"""``raycl release``: what is published, what could be, and back to what was."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from raycl import config_file, journey
from raycl.cli_options import AsJson, ConfigPath, Overrides
from raycl.console import Screen
from raycl.errors import CorruptRelease
from raycl.storage.pointer import Pointer

# raycl.index brings torch and FAISS along, so it is imported inside the functions.

app = typer.Typer(help="The releases of a workspace. No command of these starts Ray.", no_args_is_help=True)

Name = Annotated[
    str, typer.Argument(metavar="RELEASE", help="Name of a release, or as much of its beginning as no other has.")
]
MaybeName = Annotated[
    str | None,
    typer.Argument(metavar="[RELEASE]", help="Name of a release, or its beginning; by default the current one."),
]


@app.command("list")
def list_all(config: ConfigPath, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Every finished release, the newest first: whether it is current, when it was, and what the gate said."""
    from raycl.index import releases

    workspace, screen = journey.workspace(config_file.load(config, overrides or ())), Screen(as_json=as_json)
    rows = releases.listed(workspace)
    if as_json:
        screen.json({"releases": rows})
    elif rows:
        screen.rows(f"releases in {workspace.store.uri}", rows)
    else:
        screen.say(f"no releases in {workspace.store.uri}: 'raycl run' makes the first")


@app.command()
def show(config: ConfigPath, name: MaybeName = None, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """All that a release says of itself: lineage, search, the gate's evidence, config, files."""
    from raycl.index import releases

    workspace, screen = journey.workspace(config_file.load(config, overrides or ())), Screen(as_json=as_json)
    told = releases.described(workspace, releases.named(workspace, name))
    if as_json:
        screen.json(told)
        return
    for part in ("lineage", "search", "counts"):
        screen.rows(part, _facts(told[part]))
    screen.rows("gate", [_check(check) for check in told["gate"]["verdict"]["checks"]])
    screen.rows("files", [{"path": path, **held} for path, held in told["files"].items()])
    times = ", ".join(f"{one['number']} at {one['at']} UTC" for one in told["published"]) or "never"
    screen.say(f"{told['uri']}, {'current' if told['current'] else 'not current'}; published: {times}")


@app.command()
def promote(config: ConfigPath, name: Name, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Make a release current that the gate let pass, once it is verified."""
    from raycl.index import publish, releases

    workspace = journey.workspace(config_file.load(config, overrides or ()))
    _tell(publish.publish(workspace, releases.named(workspace, name)), as_json)


@app.command()
def rollback(
    config: ConfigPath,
    overrides: Overrides = None,
    to: Annotated[str | None, typer.Option(help="Which; by default the one before the current one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Publish an older release anew, once it is verified; again goes one further back."""
    from raycl.index import releases

    workspace = journey.workspace(config_file.load(config, overrides or ()))
    _tell(releases.rollback(workspace, to), as_json)


@app.command()
def prune(
    config: ConfigPath,
    overrides: Overrides = None,
    keep: Annotated[int, typer.Option(min=1, help="How many that were current last are kept, this one included.")] = 7,
    grace_s: Annotated[
        float, typer.Option(min=0.0, help="Seconds since a release was current within which it is kept.")
    ] = 86_400.0,
    pin: Annotated[list[str] | None, typer.Option(help="Keep this one too, as servers that are pinned to it.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove old releases: never the current one, nor one that a server may be loading."""
    from raycl.index import releases

    workspace, screen = journey.workspace(config_file.load(config, overrides or ())), Screen(as_json=as_json)
    found = releases.prune(workspace, keep, grace_s, pin or (), dry_run=dry_run)
    if as_json:
        screen.json({"kept": found.reasons, "removed": list(found.removed), "dry_run": dry_run})
        return
    screen.rows("kept", [{"release": name, "reason": reason} for name, reason in found.reasons.items()])
    for name in found.removed:
        screen.say(f"{'would remove' if dry_run else 'removed'} {name}")


@app.command()
def verify(
    config: ConfigPath,
    name: MaybeName = None,
    overrides: Overrides = None,
    every: Annotated[bool, typer.Option("--all", help="Every finished release.")] = False,
    as_json: AsJson = False,
) -> None:
    """Read every byte of a release and check its SHA-256, and that towers and index were made together."""
    from raycl.index import releases

    workspace, screen = journey.workspace(config_file.load(config, overrides or ())), Screen(as_json=as_json)
    versions = list(workspace.readable(releases.STAGE)) if every else [releases.named(workspace, name)]
    found = releases.verified(versions)
    if as_json:
        screen.json({"problems": found})
    else:
        screen.rows("releases", [{"release": key, "problem": problem or "none"} for key, problem in found.items()])
    wrong = [problem for problem in found.values() if problem]
    if wrong:
        raise CorruptRelease(f"{len(wrong)} of {len(found)} releases cannot be served: {wrong[0]}")


@app.command()
def diff(
    config: ConfigPath,
    before: Name,
    after: MaybeName = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """What changed from one release to another: items in and out, config, metrics, and how far they answer alike."""
    from raycl.index import release_diff, releases

    loaded, screen = config_file.load(config, overrides or ()), Screen(as_json=as_json)
    workspace = journey.workspace(loaded)
    found = release_diff.between(loaded, workspace, releases.named(workspace, before), releases.named(workspace, after))
    if as_json:
        screen.json(found.to_dict())
        return
    for title, rows in found.tables().items():
        if rows:
            screen.rows(title, rows)
    for line in found.lines():
        screen.say(line)


def _tell(made: Pointer, as_json: bool) -> None:
    screen = Screen(as_json=as_json)
    if as_json:
        screen.json({"release": made.release, "number": made.number})
    else:
        screen.say(f"release {made.release} is current, as publication {made.number}")


def _facts(facts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"fact": name, "value": str(value)} for name, value in facts.items()]


def _check(check: dict[str, Any]) -> dict[str, Any]:
    bound = f"{'<=' if check['ceiling'] else '>='} {check['bound']:g}"
    return {"measure": check["name"], "value": float(check["value"]), "bound": bound}
