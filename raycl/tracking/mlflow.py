"""A run on an MLflow tracking server, through the server's documented REST API (version 2.0, all that it needs).

MLflow's own client would bring twenty packages and an older pyarrow for these seven calls.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from typing import Any

import httpx

from raycl.errors import RayclError
from raycl.storage.store import Store
from raycl.storage.versions import WORK
from raycl.tracking.events import Event, scalars

log = logging.getLogger(__name__)

_RUN = f"{WORK}/mlflow.json"
"""Which run of which server the draft of the towers is, so that a resumed one goes on in it."""
_TIMEOUT_S = 10.0
_TRIES = 3
_METRICS_AT_ONCE, _PARAMS_AT_ONCE, _TAGS_AT_ONCE = 1_000, 100, 100
"""Limits of ``runs/log-batch``."""
_LONGEST = 500


class Mlflow:
    """Metrics by step, the config as parameters, and how the run ended. Raises RayclError where the server does not.

    A step is logged once: MLflow keeps every value of a metric, so what it has of a resumed run is not sent again.
    """

    def __init__(
        self, uri: str, experiment: str, name: str, about: Mapping[str, Any], store: Store, tags: Mapping[str, str]
    ) -> None:
        """Open the run ``name``, or that which ``store`` remembers; ``about`` is the tree of its parameters."""
        self._uri, self._waiting = uri, list[dict[str, Any]]()
        self._client = httpx.Client(base_url=f"{uri}/api/2.0/mlflow", timeout=_TIMEOUT_S, **_credentials())
        self._run = self._opened(experiment, name, store, tags)
        self._logged = self._steps_logged()
        self._params({key: value for key, value in _flat(about) if len(key) <= 250})

    def put(self, event: Event) -> None:
        for key, value in scalars(event).items():
            if event["step"] > self._logged.get(key, -1):
                self._logged[key] = event["step"]
                at = round(event["time"] * 1000)
                self._waiting.append({"key": key, "value": value, "timestamp": at, "step": event["step"]})

    def flush(self) -> None:
        while self._waiting:
            some, self._waiting = self._waiting[:_METRICS_AT_ONCE], self._waiting[_METRICS_AT_ONCE:]
            self._call("POST", "runs/log-batch", {"run_id": self._run, "metrics": some})

    def close(self, *, finished: bool) -> None:
        self.flush()
        # One that was not finished may go on, and MLflow has no word for that but KILLED.
        self._call("POST", "runs/update", {"run_id": self._run, "status": "FINISHED" if finished else "KILLED"})
        self._client.close()

    def _opened(self, experiment: str, name: str, store: Store, tags: Mapping[str, str]) -> str:
        if store.exists(_RUN):
            known = json.loads(store.read(_RUN))
            if known["uri"] == self._uri and known["experiment"] == experiment:
                run = str(known["run"])
                self._call("POST", "runs/update", {"run_id": run, "status": "RUNNING"})
                return run
        described = [{"key": key, "value": value[:_LONGEST]} for key, value in tags.items()]
        asked = {"experiment_id": self._experiment(experiment), "run_name": name, "tags": described[:_TAGS_AT_ONCE]}
        run = str(self._call("POST", "runs/create", asked)["run"]["info"]["run_id"])
        store.write(_RUN, json.dumps({"uri": self._uri, "experiment": experiment, "run": run}).encode())
        return run

    def _experiment(self, name: str) -> str:
        for _ in range(_TRIES):  # somebody else may make it between the two calls
            found = self._call("GET", "experiments/get-by-name", {"experiment_name": name}, missing=True)
            if found:
                return str(found["experiment"]["experiment_id"])
            self._call("POST", "experiments/create", {"name": name}, missing=True)
        raise RayclError(f"the experiment '{name}' can neither be found nor made")

    def _steps_logged(self) -> dict[str, int]:
        """By metric, the last step that the server knows."""
        found = self._call("GET", "runs/get", {"run_id": self._run})["run"]["data"].get("metrics", ())
        return {metric["key"]: int(metric.get("step", 0)) for metric in found}

    def _params(self, params: Mapping[str, str]) -> None:
        """A resumed run has them already, and the same value again is no error."""
        listed = [{"key": key, "value": value[:_LONGEST]} for key, value in params.items()]
        for start in range(0, len(listed), _PARAMS_AT_ONCE):
            some = listed[start : start + _PARAMS_AT_ONCE]
            self._call("POST", "runs/log-batch", {"run_id": self._run, "params": some})

    def _call(self, method: str, path: str, said: Mapping[str, Any], *, missing: bool = False) -> dict[str, Any]:
        """What the server answers; with ``missing`` nothing where it says that there is none, or one already."""
        for number in range(_TRIES):
            try:
                if method == "GET":
                    answer = self._client.get(path, params=dict(said))
                else:
                    answer = self._client.post(path, json=said)
            except httpx.HTTPError as error:
                # Its own words name the address alone, and that has no secrets.
                if number == _TRIES - 1:
                    raise RayclError(f"{self._uri} is out of reach ({type(error).__name__})") from error
                continue
            if answer.is_success:
                return dict(answer.json())
            code = _code(answer)
            if missing and code in ("RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS"):
                return {}
            if answer.status_code < 500 or number == _TRIES - 1:
                raise RayclError(f"{self._uri} answers {path} with {answer.status_code} {code}".rstrip())
        raise AssertionError


def _code(answer: httpx.Response) -> str:
    try:
        return str(answer.json().get("error_code", ""))
    except (ValueError, AttributeError):
        return ""


def _credentials() -> dict[str, Any]:
    """As MLflow's own client takes them from the environment."""
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"headers": {"Authorization": f"Bearer {token}"}}
    user, password = (os.environ.get(f"MLFLOW_TRACKING_{name}") for name in ("USERNAME", "PASSWORD"))
    return {"auth": (user, password)} if user and password else {}


def _flat(tree: Any, path: str = "") -> list[tuple[str, str]]:
    """Every plain value of the tree by its dotted path."""
    if isinstance(tree, Mapping):
        return [pair for key, part in tree.items() for pair in _flat(part, f"{path}.{key}" if path else str(key))]
    if isinstance(tree, list | tuple):
        return [pair for place, part in enumerate(tree) for pair in _flat(part, f"{path}.{place}")]
    return [(path, str(tree))]
