"""Where the API server is, by everything that says so: none of it may become an egress IP.

Its endpoints and the address that kubeadm's nodes join by (ConfigMap kube-public/cluster-info) change about never, and
RBAC lets the operator read these two objects alone, so they are asked for now and then instead of being watched.

Invariant: an object that is not there says nothing; one that cannot be read is an error, and what it said stays.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from sluice_operator.core import project_cluster
from sluice_operator.core.snapshot import Address
from sluice_operator.shell import kube
from sluice_operator.shell.kube import Api, NotFound, Resource

_Read = Callable[[Mapping[str, Any]], tuple[Address, ...]]
_SOURCES: Final[tuple[tuple[Resource, str, str, _Read], ...]] = (
    (kube.ENDPOINT_SLICE, "default", "kubernetes", project_cluster.endpoints),
    (kube.CONFIG_MAP, "kube-public", "cluster-info", project_cluster.cluster_info),
)


class ApiServerAddresses:
    """Addresses of the API server by what says so; `host` is the one that this process was told to use."""

    def __init__(self, host: str, *, wake: Callable[[str], None]) -> None:
        self.synced = False
        self.known: dict[str, tuple[Address, ...]] = {"KUBERNETES_SERVICE_HOST": project_cluster.literal(host)}
        self._wake = wake

    async def read(self, api: Api) -> None:
        """Ask again. Raises ApiError."""
        found = dict(self.known)
        for resource, namespace, name, read in _SOURCES:
            try:
                addresses = read(await api.get(resource, name, namespace=namespace))
            except NotFound:
                addresses = ()
            found[f"{resource.kind} {namespace}/{name}"] = addresses
        if found != self.known or not self.synced:
            self.known, self.synced = found, True
            self._wake("API server")
