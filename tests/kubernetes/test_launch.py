"""Launching against an API server of few lines; `tests/manifests/test_api_server.py` does it against a real one."""

from __future__ import annotations

import json
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from raycl import cli
from raycl.errors import InputError, RayclError
from raycl.kubernetes import api, launch
from raycl.kubernetes.api import Api, ApiError
from raycl.kubernetes.rayjob import Owner
from tests.kubernetes.test_rayjob import template

NOW = datetime(2026, 11, 21, 2, 0, tzinfo=UTC)
RUN = "raycl-nightly-20261121-0200"
ROOT = "/apis/ray.io/v1/namespaces/raycl/rayjobs"


class Server:
    """RayJobs by name, and statuses that each look at a run finds, one after another."""

    def __init__(self, *statuses: dict[str, Any] | int) -> None:
        self.found = {"raycl-nightly": template()}
        self.statuses = list(statuses)
        self.tokens: list[str | None] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        """What an API server would."""
        self.tokens.append(request.headers.get("Authorization"))
        if request.method == "POST":
            assert (request.url.path, request.url.query) == (ROOT, b"fieldValidation=Strict")
            made = json.loads(request.content)
            if made["metadata"]["name"] in self.found:
                return httpx.Response(409, json={"message": "already exists"})
            self.found[made["metadata"]["name"]] = made
            return httpx.Response(201, json=made)
        name = request.url.path.removeprefix(f"{ROOT}/")
        if name not in self.found:
            return httpx.Response(404, json={"message": f'rayjobs.ray.io "{name}" not found'})
        if name == RUN and self.statuses:
            status = self.statuses.pop(0)
            if isinstance(status, int):
                return httpx.Response(status, text="later")
            self.found[name]["status"] = status
        return httpx.Response(200, json=self.found[name])

    def api(self, token: str | None = "t") -> Api:
        """A client of it."""
        client = httpx.Client(base_url="https://k", transport=httpx.MockTransport(self.answer))
        return Api(client, "raycl", lambda: token)


def test_two_launches_of_one_night_make_one_run() -> None:
    server = Server()
    owner = Owner(f"raycl-nightly-{int(NOW.timestamp()) // 60}", "u")
    assert launch.launch(server.api(), "raycl-nightly", NOW, owner=owner) == (RUN, True)
    assert launch.launch(server.api(), "raycl-nightly", NOW, owner=owner) == (RUN, False)
    assert set(server.found) == {"raycl-nightly", RUN}
    assert set(server.tokens) == {"Bearer t"}


def test_a_template_that_is_not_there_is_told_in_the_servers_words() -> None:
    with pytest.raises(ApiError, match=r'404: rayjobs\.ray\.io "raycl-train" not found'):
        launch.launch(Server().api(), "raycl-train", NOW)


def test_a_run_is_waited_for_through_silence_of_the_server() -> None:
    server = Server(
        {}, 503, 429, {"jobDeploymentStatus": "Running"}, {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
    )
    slept: list[float] = []
    name, _ = launch.launch(server.api(), "raycl-nightly", NOW)
    assert launch.wait(server.api(), name, 7.0, slept.append).state == "done"
    assert slept == [7.0] * 4


def test_a_failed_run_ends_the_wait_with_what_kuberay_says() -> None:
    server = Server({"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "DeadlineExceeded"})
    launch.launch(server.api(), "raycl-nightly", NOW)
    with pytest.raises(RayclError, match=rf"{RUN}: Failed, job FAILED \(DeadlineExceeded\): see 'kubectl describe"):
        launch.wait(server.api(), RUN, 1.0, lambda _: None)


def test_a_server_that_stays_silent_or_refuses_is_not_waited_for_for_ever() -> None:
    clock = iter(range(1_000))

    def silent() -> dict[str, Any]:
        raise ApiError("silent", 0)

    with pytest.raises(ApiError, match="silent"):
        api.patiently(silent, 1.0, patience_s=5, clock=lambda: next(clock), sleep=lambda _: None)
    assert next(clock) < 10

    def refused() -> dict[str, Any]:
        raise ApiError("refused", 403)

    with pytest.raises(ApiError, match="refused"):
        api.patiently(refused, 1.0, sleep=lambda _: None)


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of a pod's service account."""
    for name, text in (("token", "first\n"), ("namespace", "raycl"), ("ca.crt", "")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(ssl, "create_default_context", lambda cafile: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    return tmp_path


def test_a_pods_token_is_read_anew_for_every_request(account: Path) -> None:
    found = Api.within({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "6443"}, account)
    assert (str(found.client.base_url), found.namespace) == ("https://10.0.0.1:6443", "raycl")
    assert found.token() == "first"
    (account / "token").write_text("second", encoding="utf-8")
    assert found.token() == "second"
    six = Api.within({"KUBERNETES_SERVICE_HOST": "fd00::1"}, account)
    assert str(six.client.base_url) == "https://[fd00::1]"


def test_outside_a_pod_it_is_said_how_to_reach_the_api_server(account: Path) -> None:
    with pytest.raises(InputError, match="kubectl proxy"):
        Api.within({}, account)


def test_the_command_launches_waits_and_ends_with_1_where_the_run_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED"}
    server = Server({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}, failed)
    monkeypatch.setattr(Api, "at", lambda url, namespace: server.api(None))
    monkeypatch.setenv("RAYCL_LAUNCHED_BY", f"raycl-nightly-{int(NOW.timestamp()) // 60}")
    monkeypatch.setenv("RAYCL_LAUNCHED_BY_UID", "u")
    command = ["launch", "raycl-nightly", "--wait", "--json", "--api", "http://127.0.0.1:8001", "--namespace", "raycl"]
    for code, told in ((0, {"name": RUN, "created": True, "state": "done"}), (1, None)):
        with pytest.raises(SystemExit) as ended:
            cli.main(command)
        assert ended.value.code == code
        out = capsys.readouterr().out
        assert (json.loads(out) if out else None) == told
    assert server.tokens[0] is None


def test_a_server_without_a_namespace_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["launch", "raycl-nightly", "--api", "http://127.0.0.1:8001"])
    assert ended.value.code == 2
    assert "--api and --namespace go together" in capsys.readouterr().err
