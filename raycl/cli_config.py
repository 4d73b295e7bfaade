"""``raycl config``: what may stand in a config, and whether one is good."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from raycl import config_file
from raycl.cli_options import ConfigPath, Overrides
from raycl.config import Config
from raycl.console import Screen

app = typer.Typer(help="Check a config before anything starts.", no_args_is_help=True)


@app.command()
def schema() -> None:
    """Print the JSON schema of the config."""
    typer.echo(json.dumps(Config.model_json_schema(), indent=2))


@app.command()
def check(
    config: ConfigPath,
    overrides: Overrides = None,
    inputs: Annotated[
        bool,
        typer.Option(
            "--inputs", help="Open the logs and tables too: files, columns, types, and events without a weight."
        ),
    ] = False,
) -> None:
    """Check a config and say that it is good, or what to change."""
    loaded = config_file.load(config, overrides or ())
    found = f"{len(loaded.logs)} log source(s)"
    warnings: list[str] = []
    if inputs:
        from raycl.data import event_types, sources

        opened = sources.open_inputs(loaded)
        found += f" of {sum(log.num_rows for log in opened.logs):,} rows"
        warnings = event_types.unweighted(loaded, opened).lines()
    if loaded.search is not None:
        from raycl.search import trials

        found += f", a search of {len(trials.of(loaded))} trials"
    screen = Screen(as_json=False)
    screen.say(f"{config} is good: workspace {loaded.workspace}, {found}")
    for line in warnings:
        screen.say(line)
