"""Arguments that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file of the whole journey.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=VALUE", help="Change one value; may be given several times.")
]
Force = Annotated[bool, typer.Option("--force", help="Make a new version even where a finished one is there.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one line of JSON instead of tables.")]
