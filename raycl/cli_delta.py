"""``raycl delta``: items that join the current release between two nights, leave it, or change."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from raycl import config_file, journey
from raycl.cli_options import AsJson, ConfigPath, Overrides
from raycl.console import Screen

# raycl.index brings torch and FAISS along, so it is imported inside the functions.

app = typer.Typer(
    help="New, changed and removed items between two nights. No command of these starts Ray.", no_args_is_help=True
)


@app.command()
def add(
    config: ConfigPath,
    items: Annotated[
        str | None,
        typer.Argument(metavar="[ITEMS]", help="Parquet with the new and changed rows of the config's items table."),
    ] = None,
    remove: Annotated[str | None, typer.Option(help="Ids of items to remove, comma-separated.")] = None,
    remove_from: Annotated[str | None, typer.Option(help="Parquet with ids of items to remove.")] = None,
    release: Annotated[str | None, typer.Option(help="Refuse unless this release is the current one.")] = None,
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and embed, and hand nothing in.")] = False,
    as_json: AsJson = False,
) -> None:
    """Hand in items: embedded with the current release's tower, in its servers within serving.poll_s."""
    from raycl.index import hand_in

    loaded, screen = config_file.load(config, overrides or ()), Screen(as_json=as_json)
    gone = [part.strip() for part in (remove or "").split(",") if part.strip()]
    handed = hand_in.read(loaded.items, items, gone, remove_from)
    found = hand_in.to_current(journey.workspace(loaded), handed, release, dry_run=dry_run)
    if as_json:
        screen.json({**asdict(found), "dry_run": dry_run})
        return
    what = f"{found.new} new, {found.changed} changed and {found.removed} removed items"
    unknown = f" ({found.unknown} to remove that it did not answer with)" if found.unknown else ""
    done = f"would join release {found.release}" if dry_run else f"joined release {found.release} as {found.number}"
    screen.say(f"{what} {done}{unknown}")


@app.command("list")
def list_all(config: ConfigPath, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """What was handed in to the current release, and what is wrong with any of it."""
    from raycl.index import hand_in, releases

    workspace, screen = journey.workspace(config_file.load(config, overrides or ())), Screen(as_json=as_json)
    built = releases.named(workspace, None)
    rows = hand_in.listed(workspace, built)
    if as_json:
        screen.json({"release": built.name, "hand_ins": rows})
    elif rows:
        screen.rows(f"handed in to release {built.name}", rows)
    else:
        screen.say(f"nothing was handed in to release {built.name}: see 'raycl delta add'")


@app.command()
def withdraw(
    config: ConfigPath,
    number: Annotated[int, typer.Argument(metavar="NUMBER", help="Of the hand-in, as 'raycl delta list' has it.")],
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Take a hand-in back: its items are again what they were without it."""
    from raycl.index import deltas, releases

    workspace, screen = journey.workspace(config_file.load(config, overrides or ())), Screen(as_json=as_json)
    built = releases.named(workspace, None)
    made = deltas.withdraw(workspace.store, built, number)
    if as_json:
        screen.json({"release": built.name, "number": made, "withdraws": number})
    else:
        screen.say(f"hand-in {number} to release {built.name} is taken back, as {made}")
