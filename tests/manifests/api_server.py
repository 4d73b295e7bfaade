"""A real API server for CustomResourceDefinitions on this machine, with KubeRay's kinds in it."""

from __future__ import annotations

import datetime
import ipaddress
import json
import lzma
import os
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from raycl import ports
from tests.cluster import processes
from tests.manifests import kuberay
from tests.manifests.builds import Manifest

_WITHIN_S = 60
_PLURALS = {"RayJob": "rayjobs", "RayService": "rayservices"}


@dataclass(frozen=True)
class Server:
    """A running server, and a client whom it lets do everything."""

    client: httpx.Client

    def apply(self, manifest: Manifest) -> httpx.Response:
        """What ``kubectl apply --server-side --dry-run=server --validate=strict`` sends."""
        name, namespace = manifest["metadata"]["name"], manifest["metadata"]["namespace"]
        return self.client.patch(
            f"/apis/ray.io/v1/namespaces/{namespace}/{_PLURALS[manifest['kind']]}/{name}",
            params={"fieldManager": "test", "force": "true", "fieldValidation": "Strict", "dryRun": "All"},
            headers={"Content-Type": "application/apply-patch+yaml"},
            content=json.dumps(manifest),
        )

    def define(self, definition: Manifest) -> None:
        """Add a kind, and wait until the server serves it."""
        root = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        self.client.post(root, json=definition).raise_for_status()
        deadline = time.monotonic() + _WITHIN_S
        while True:
            status = self.client.get(f"{root}/{definition['metadata']['name']}").json().get("status", {})
            if {"type": "Established", "status": "True"} in [
                {key: one[key] for key in ("type", "status")} for one in status.get("conditions") or []
            ]:
                return
            assert time.monotonic() < deadline, f"{definition['metadata']['name']} is not served: {status}"
            time.sleep(0.1)


@contextmanager
def running(scratch: Path) -> Iterator[Server]:
    """The server; the test is skipped where it, etcd or the definitions are absent."""
    folder = kuberay.folder()
    packed, etcd = folder / "apiextensions-apiserver.xz", shutil.which(os.environ.get("RAYCL_ETCD", "etcd"))
    if not packed.exists() or etcd is None:
        pytest.skip(f"needs {packed}, and etcd on the PATH or named in RAYCL_ETCD")
    binary = scratch / "apiserver"
    with lzma.open(packed) as stream, binary.open("wb") as output:
        shutil.copyfileobj(stream, output)
    binary.chmod(0o700)
    clients, peers, port = ports.free(3)
    _write_certificates(scratch)
    (scratch / "kubeconfig").write_text(yaml.safe_dump(_kubeconfig(scratch, port)), encoding="utf-8")
    store = [
        *(etcd, "--data-dir", str(scratch / "etcd"), "--unsafe-no-fsync"),
        *(f"--listen-client-urls=http://127.0.0.1:{clients}", f"--advertise-client-urls=http://127.0.0.1:{clients}"),
        *(f"--listen-peer-urls=http://127.0.0.1:{peers}", f"--initial-advertise-peer-urls=http://127.0.0.1:{peers}"),
        f"--initial-cluster=default=http://127.0.0.1:{peers}",
    ]
    server = [
        *(str(binary), f"--etcd-servers=http://127.0.0.1:{clients}"),
        *(f"--secure-port={port}", "--bind-address=127.0.0.1", f"--client-ca-file={scratch}/ca.crt"),
        *(f"--tls-cert-file={scratch}/server.crt", f"--tls-private-key-file={scratch}/server.key"),
        *(f"--{name}kubeconfig={scratch}/kubeconfig" for name in ("", "authentication-", "authorization-")),
        *("--authentication-skip-lookup", "--enable-priority-and-fairness=false"),
        "--disable-admission-plugins=NamespaceLifecycle,MutatingAdmissionWebhook,ValidatingAdmissionWebhook,"
        "ValidatingAdmissionPolicy,MutatingAdmissionPolicy",
    ]
    context = ssl.create_default_context(cafile=str(scratch / "ca.crt"))
    context.load_cert_chain(scratch / "client.crt", scratch / "client.key")
    leaders: list[subprocess.Popen[bytes]] = []
    try:
        for name, command in (("etcd", store), ("server", server)):
            leaders.append(processes.start(command, os.environ, scratch / f"{name}.log"))
        with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=context, trust_env=False, timeout=30) as client:
            _await(client, scratch / "server.log")
            found = Server(client)
            for kind in kuberay.KINDS:
                found.define(kuberay.definitions(folder / "crds")[kind])
            yield found
    finally:
        for leader in reversed(leaders):
            processes.kill(leader)


def _await(client: httpx.Client, log: Path) -> None:
    deadline = time.monotonic() + _WITHIN_S
    while True:
        try:
            if client.get("/apis/apiextensions.k8s.io/v1/customresourcedefinitions").is_success:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, f"the API server does not answer: {log.read_text()}"
        time.sleep(0.1)


def _kubeconfig(folder: Path, port: int) -> dict[str, Any]:
    """The server's own way to itself."""
    user = {"client-certificate": str(folder / "client.crt"), "client-key": str(folder / "client.key")}
    cluster = {"server": f"https://127.0.0.1:{port}", "certificate-authority": str(folder / "ca.crt")}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "it", "cluster": cluster}],
        "users": [{"name": "it", "user": user}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        "current-context": "it",
    }


def _write_certificates(folder: Path) -> None:
    """An authority, the server's certificate and that of an administrator, good for a day."""
    authority = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
    for name, group in (("ca", None), ("server", None), ("client", "system:masters")):
        key = authority if name == "ca" else ec.generate_private_key(ec.SECP256R1())
        words = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
        words += [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group)] if group else []
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(issuer if name == "ca" else x509.Name(words))
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=name == "ca", path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        )
        made = builder.sign(authority, hashes.SHA256())
        (folder / f"{name}.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
        (folder / f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
