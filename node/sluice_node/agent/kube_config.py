"""Where the API server is and how to prove who we are: from inside a pod, or from a kubeconfig.

Must not open connections. A kubeconfig must be JSON (`kubectl config view --raw --flatten -o json`): it serves tests
and debugging only, and a YAML parser on every node is not worth that.
"""

import base64
import json
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class ConfigError(Exception):
    """The way to the API server is not known; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class KubeConfig:
    """`url` of the API server. The token is in a file that kubelet renews, or fixed."""

    url: str
    tls: ssl.SSLContext = field(repr=False)
    token_file: Path | None = None
    fixed_token: str | None = field(default=None, repr=False)

    def token(self) -> str | None:
        """The bearer token of this moment: a projected token is renewed well before it expires, so it is read anew
        for every request. Raises ConfigError."""
        if self.token_file is None:
            return self.fixed_token
        try:
            return self.token_file.read_text().strip()
        except OSError as error:
            raise ConfigError(f"cannot read the service account's token: {error}") from error


def in_cluster(environ: Mapping[str, str] = os.environ, account: Path = _ACCOUNT) -> KubeConfig:
    """The configuration that Kubernetes gives to a pod. Raises ConfigError."""
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        raise ConfigError("KUBERNETES_SERVICE_HOST is not set: this is no pod; pass --kubeconfig")
    try:
        tls = ssl.create_default_context(cafile=str(account / "ca.crt"))
    except OSError as error:
        raise ConfigError(f"cannot read {account / 'ca.crt'}: {error}") from error
    return KubeConfig(f"https://{f'[{host}]' if ':' in host else host}:{port}", tls, token_file=account / "token")


def from_kubeconfig(path: Path) -> KubeConfig:
    """The current context of a kubeconfig in JSON. Raises ConfigError."""
    try:
        document = json.loads(path.read_text())
        context = _named(document["contexts"], document["current-context"])["context"]
        cluster = _named(document["clusters"], context["cluster"])["cluster"]
        user = _named(document["users"], context["user"])["user"]
        return KubeConfig(cluster["server"], _tls(cluster, user), fixed_token=user.get("token"))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ConfigError(
            f"{path} is not a kubeconfig in JSON that needs no other program ({error}); "
            "write one with `kubectl config view --raw --flatten --minify -o json`"
        ) from error


def _named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(entry for entry in entries if entry["name"] == name)


def _tls(cluster: Mapping[str, Any], user: Mapping[str, Any]) -> ssl.SSLContext:
    data = cluster.get("certificate-authority-data")
    tls = ssl.create_default_context(
        cafile=cluster.get("certificate-authority"), cadata=base64.b64decode(data).decode() if data else None
    )
    if "client-certificate" in user:
        tls.load_cert_chain(user["client-certificate"], user["client-key"])
    return tls
