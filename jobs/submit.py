"""A stage of a config as a job of a Ray cluster, with the code of this checkout, the whole config and the token.

python jobs/submit.py STAGE CONFIG [--set a.b=c] [--address http://head:8265] [--force] [--no-wait] [--env NAME]
"""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from raycl import config_file, submission
from raycl.cli_options import ConfigPath, Overrides
from raycl.errors import RayclError

ROOT = Path(__file__).resolve().parent.parent
Stage = Annotated[str, typer.Argument(metavar="STAGE", help=f"One of {', '.join(submission.SCRIPTS)}.")]
Address = Annotated[str, typer.Option(envvar="RAY_API_SERVER_ADDRESS", help="The job API of the head.")]
Carried = Annotated[list[str] | None, typer.Option(help="Variable of this shell that the job gets; no secrets.")]
Python = Annotated[str, typer.Option(help="Interpreter on the head.")]


def submit(
    stage: Stage,
    config: ConfigPath,
    overrides: Overrides = None,
    address: Address = "http://127.0.0.1:8265",
    env: Carried = None,
    python: Python = "python",
    force: Annotated[bool, typer.Option("--force", help="Make a new version even where a finished one is.")] = False,
    wait: Annotated[bool, typer.Option(help="Print what the job says, and end as it does.")] = True,
) -> None:
    """Submit one stage; the config is checked here, before anything is sent."""
    try:
        os.environ |= submission.access(os.environ, Path.home())
        command = submission.entrypoint(stage, python, ["--json", *(["--force"] if force else [])])
        name = submission.submission_id(stage, datetime.now(UTC), secrets.token_hex(2))
        with tempfile.TemporaryDirectory() as folder:
            submission.stage_folder(ROOT, config_file.load(config, overrides or ()), Path(folder))
            from raycl import ray_submit  # which reads the environment

            carried = submission.carried(env or (), os.environ)
            client = ray_submit.send(address, Path(folder), command, name, carried)
    except RayclError as error:
        sys.stderr.write(f"submit: {error}\n")
        sys.exit(error.exit_code)
    sys.stderr.write(f"submitted {name}\n")
    sys.exit(ray_submit.follow(client, name) if wait else 0)


if __name__ == "__main__":
    typer.run(submit)
