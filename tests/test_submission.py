"""What a submitted job carries is checked and whole before anything is sent."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer

from jobs import submit
from raycl import config_file, submission
from raycl.errors import ConfigError, InputError
from tests.cluster import builders

ROOT = Path(__file__).resolve().parent.parent


def test_the_folder_has_the_package_the_scripts_and_the_config_with_nothing_left_to_fill_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HERE", str(tmp_path))
    tree = builders.config_tree(Path("${HERE}/log"), "${HERE}/workspace")
    config = config_file.load(builders.write_config(tmp_path / "c.yaml", tree), ["train.epochs=2"])
    (tmp_path / "folder").mkdir()
    submission.stage_folder(ROOT, config, tmp_path / "folder")
    assert {path.name for path in (tmp_path / "folder").iterdir()} == {"raycl", "jobs", "raycl.yaml"}
    monkeypatch.delenv("HERE")
    assert config_file.load(tmp_path / "folder" / submission.CONFIG) == config
    assert config.workspace == str(tmp_path / "workspace")
    command = [sys.executable, *submission.entrypoint("pairs", "python", ["--help"])[1:]]
    assert subprocess.run(command, cwd=tmp_path / "folder", capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [("workspace", "workspace"), ("logs.0.uri", "logs/*.parquet"), ("items.uri", "../items.parquet")],
)
def test_a_relative_path_is_refused_since_it_would_go_with_the_job(tmp_path: Path, field: str, value: str) -> None:
    path = builders.write_config(tmp_path / "c.yaml", builders.config_tree(tmp_path / "log", "s3://bucket/w"))
    config = config_file.load(path, [f"{field}={value}"])
    with pytest.raises(ConfigError, match=rf"{field}=.* is relative, and a job runs in a folder of its own"):
        submission.stage_folder(ROOT, config, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_there_is_a_script_for_every_stage() -> None:
    there = {path.name for path in (ROOT / "jobs").glob("*.py")}
    assert there == {*submission.SCRIPTS.values(), "submit.py"}
    for stage in submission.SCRIPTS:
        assert submission.entrypoint(stage, "python")[1:] == [f"jobs/{submission.SCRIPTS[stage]}", "raycl.yaml"]
    with pytest.raises(InputError, match="stage tune has no job: name one of pairs, train"):
        submission.entrypoint("tune", "python")


def test_secrets_stay_out_of_what_everybody_may_list() -> None:
    environment = {"AWS_SECRET_ACCESS_KEY": "s", "RAY_AUTH_TOKEN": "t", "RAYCL_X": "x"}
    assert submission.carried(["RAYCL_X"], environment) == {"RAYCL_X": "x"}
    for name in ("AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN", "MLFLOW_TRACKING_PASSWORD", "AWS_ACCESS_KEY_ID"):
        with pytest.raises(InputError, match=f"--env {name} looks like a secret"):
            submission.carried([name], environment)
    with pytest.raises(InputError, match="--env RAYCL_Y: the variable is not set here"):
        submission.carried(["RAYCL_Y"], environment)


def test_a_token_is_found_where_ray_looks_for_it(tmp_path: Path) -> None:
    token = {"RAY_AUTH_MODE": "token"}
    with pytest.raises(InputError, match="no token for the cluster: name its file in RAY_AUTH_TOKEN_PATH"):
        submission.access({}, tmp_path)
    with pytest.raises(InputError, match=r"RAY_AUTH_TOKEN_PATH=\S+/none is no file"):
        submission.access({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "none"), "RAY_AUTH_TOKEN": "t"}, tmp_path)
    assert submission.access({"RAY_AUTH_MODE": "disabled"}, tmp_path) == {}
    assert submission.access({"RAY_AUTH_TOKEN": "t"}, tmp_path) == token
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("t", encoding="utf-8")
    assert submission.access({}, tmp_path) == token
    assert submission.access({"RAY_AUTH_TOKEN_PATH": str(tmp_path / ".ray" / "auth_token")}, tmp_path / "x") == token


def test_a_jobs_name_tells_stage_and_time() -> None:
    now = datetime(2026, 11, 21, 2, 0, tzinfo=UTC)
    assert submission.submission_id("train", now, "3f9a") == "raycl-train-20261121T020000-3f9a"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pairs", "none.yaml"], "none.yaml cannot be read"),
        (["pairs", "c.yaml", "--set", "train.epoch=1"], "did you mean 'epochs'?"),
        (["tune", "c.yaml"], "stage tune has no job"),
        (["pairs", "c.yaml", "--env", "AWS_SECRET_ACCESS_KEY"], "looks like a secret"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_sent(tmp_path: Path, arguments: list[str], said: str) -> None:
    builders.write_config(tmp_path / "c.yaml", builders.config_tree(tmp_path / "log", str(tmp_path / "w")))
    ended = submitted(tmp_path, *arguments, "--address", "http://127.0.0.1:1", RAY_AUTH_TOKEN="t")
    assert ended.returncode == 2
    assert ended.stderr.startswith("submit: ")
    assert said in ended.stderr


def test_without_a_token_nothing_is_sent(tmp_path: Path) -> None:
    builders.write_config(tmp_path / "c.yaml", builders.config_tree(tmp_path / "log", str(tmp_path / "w")))
    ended = submitted(tmp_path, "pairs", "c.yaml", HOME=str(tmp_path))
    assert (ended.returncode, ended.stderr.startswith("submit: no token for the cluster")) == (2, True)


def submitted(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the script in ``folder``, with nothing of this process's environment that tells of tokens."""
    command = [sys.executable, str(ROOT / "jobs" / "submit.py"), *arguments]
    plain = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(folder)}
    return subprocess.run(command, cwd=folder, env={**plain, **env}, capture_output=True, text=True, check=False)


def test_the_commands_of_the_guide_are_understood_and_name_every_job() -> None:
    text = (ROOT / "jobs" / "README.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- commands:start -->\s*```bash\n(.*?)```\s*<!-- commands:end -->", text, re.DOTALL)
    assert block
    application = typer.Typer(add_completion=False)
    application.command()(submit.submit)
    command = typer.main.get_command(application)
    stages = set()
    for line in block[1].splitlines():
        python, script, *words = shlex.split(line, comments=True)
        assert (python, script) == ("python", "jobs/submit.py")
        asked = command.make_context(script, words).params
        stages.add(asked["stage"])
        assert str(asked["config"]) == "shop.yaml"
    assert stages == set(submission.SCRIPTS)
