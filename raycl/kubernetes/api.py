"""The few requests to a Kubernetes API server that launching a run takes."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from raycl.errors import InputError, RayclError

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TIMEOUT_S = 30.0
_PATIENCE_S = 600.0
"""For how long a run is waited for while the API server does not answer; upgrades of a control plane take minutes."""


class ApiError(RayclError):
    """The API server refused a request; the message is its own."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Api:
    """RayJobs of one namespace."""

    client: httpx.Client
    namespace: str
    token: Callable[[], str | None]
    """Asked for every request, since Kubernetes replaces the tokens of pods."""

    @classmethod
    def within(cls, environment: Mapping[str, str] = os.environ, account: Path = _ACCOUNT) -> Api:
        """The API server of the pod that this process runs in, by the pod's account."""
        host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT", "443")
        if not host or not (account / "token").exists():
            raise InputError(
                "this is no pod with a service account: run 'kubectl proxy', and give --api http://127.0.0.1:8001"
                " and --namespace"
            )
        host = f"[{host}]" if ":" in host else host
        client = httpx.Client(
            base_url=f"https://{host}:{port}",
            verify=ssl.create_default_context(cafile=str(account / "ca.crt")),
            timeout=_TIMEOUT_S,
            trust_env=False,
        )
        namespace = (account / "namespace").read_text(encoding="utf-8").strip()
        return cls(client, namespace, lambda: (account / "token").read_text(encoding="utf-8").strip())

    @classmethod
    def at(cls, url: str, namespace: str) -> Api:
        """An API server that asks for nothing, such as ``kubectl proxy``."""
        return cls(httpx.Client(base_url=url, timeout=_TIMEOUT_S, trust_env=False), namespace, lambda: None)

    def get(self, name: str) -> dict[str, Any]:
        """The RayJob ``name``; ApiError where there is none."""
        return self._ask("GET", f"/{name}")

    def create(self, rayjob: dict[str, Any]) -> bool:
        """Create it, no field of it unknown to the server; False where one of that name is there."""
        try:
            self._ask("POST", "?fieldValidation=Strict", rayjob)
        except ApiError as error:
            if error.status == httpx.codes.CONFLICT:
                return False
            raise
        return True

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        token = self.token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        url = f"/apis/ray.io/v1/namespaces/{self.namespace}/rayjobs{path}"
        try:
            found = self.client.request(method, url, json=body, headers=headers)
        except httpx.TransportError as error:
            raise ApiError(f"the API server at {self.client.base_url} does not answer: {error}", 0) from error
        if found.is_success:
            return dict(found.json())
        try:
            said = str(found.json()["message"])
        except (ValueError, KeyError, TypeError):
            said = found.text[:200]
        raise ApiError(f"the API server answered {found.status_code}: {said}", found.status_code)


def passes(error: ApiError) -> bool:
    """Whether the same request may well be answered later."""
    return error.status in (0, httpx.codes.TOO_MANY_REQUESTS) or error.status >= httpx.codes.INTERNAL_SERVER_ERROR


def patiently(
    ask: Callable[[], dict[str, Any]],
    pause_s: float,
    *,
    patience_s: float = _PATIENCE_S,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """What ``ask`` returns, asked again every ``pause_s`` while the server is out of reach, for ``patience_s``."""
    deadline = clock() + patience_s
    while True:
        try:
            return ask()
        except ApiError as error:
            if not passes(error) or clock() >= deadline:
                raise
        sleep(pause_s)
