"""What a job that is submitted to a Ray cluster carries, checked before it is sent: code, the whole config, access."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from raycl import config_file
from raycl.config import Config
from raycl.errors import ConfigError, InputError

SCRIPTS = {
    "pairs": "make_pairs.py",
    "train": "train_towers.py",
    "evaluate": "evaluate.py",
    "index": "build_index.py",
    "publish": "publish.py",
    "nightly": "nightly.py",
    "doctor": "doctor.py",
}
"""The script of ``jobs/`` by the name of its command."""
CONFIG = "raycl.yaml"
"""The config in the job's working folder."""

_AT_HOME = ".ray/auth_token"
_SECRET = re.compile(r"SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL|ACCESS_KEY", re.IGNORECASE)


def stage_folder(root: Path, config: Config, folder: Path) -> None:
    """Put into ``folder`` what a job of the checkout ``root`` needs: the package, its scripts, and the config in full.

    Variables are filled in here, so the cluster needs none of them. Raises ConfigError where a path of the config is
    relative: it would lie in the job's own folder, which goes with the job.
    """
    for field, uri in _paths(config):
        if "://" not in uri and not Path(uri).is_absolute():
            raise ConfigError(
                f"{field}={uri} is relative, and a job runs in a folder of its own: name a path that all nodes share,"
                " or s3://bucket/prefix"
            )
    for name in ("raycl", "jobs"):
        shutil.copytree(root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / CONFIG).write_text(config_file.dump(config), encoding="utf-8")


def _paths(config: Config) -> list[tuple[str, str]]:
    found = [("workspace", config.workspace)]
    found += [(f"logs.{number}.uri", log.uri) for number, log in enumerate(config.logs)]
    found += [(f"{name}.uri", table.uri) for name, table in (("items", config.items), ("users", config.users)) if table]
    return found


def entrypoint(stage: str, python: str, options: Sequence[str] = ()) -> list[str]:
    """The words of the job's command, run in its folder; InputError for a stage that has no script."""
    if stage not in SCRIPTS:
        raise InputError(f"stage {stage} has no job: name one of {', '.join(SCRIPTS)}")
    return [python, f"jobs/{SCRIPTS[stage]}", CONFIG, *options]


def carried(names: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """Variables of this process that the job gets, by name.

    Raises InputError for one that is not set, and for one that looks like a secret: whoever may list jobs reads it.
    """
    for name in names:
        if _SECRET.search(name):
            raise InputError(
                f"--env {name} looks like a secret, and the variables of a job are shown to all who may list jobs: set"
                " it where 'ray start' runs, on every node"
            )
        if name not in environment:
            raise InputError(f"--env {name}: the variable is not set here; export it first")
    return {name: environment[name] for name in names}


def access(environment: Mapping[str, str], home: Path) -> dict[str, str]:
    """Variables with which Ray's client sends the cluster's token; it reads them when Ray is imported.

    Raises InputError where there is no token, unless RAY_AUTH_MODE says that the cluster wants none.
    """
    if environment.get("RAY_AUTH_MODE") == "disabled":
        return {}
    path = environment.get("RAY_AUTH_TOKEN_PATH")
    if path and not Path(path).is_file():
        raise InputError(
            f"RAY_AUTH_TOKEN_PATH={path} is no file: write the cluster's token there, readable for you alone"
        )
    if path or environment.get("RAY_AUTH_TOKEN") or (home / _AT_HOME).is_file():
        return {"RAY_AUTH_MODE": "token"}
    raise InputError(
        f"no token for the cluster: name its file in RAY_AUTH_TOKEN_PATH (or write it to ~/{_AT_HOME}); a cluster"
        " without tokens wants RAY_AUTH_MODE=disabled"
    )


def submission_id(stage: str, now: datetime, unique: str) -> str:
    """The name of a job in the cluster's list, such as ``raycl-train-20261121T020000-3f9a``."""
    return f"raycl-{stage}-{now:%Y%m%dT%H%M%S}-{unique}"
