"""What a test cluster offers, whatever it is made of: the one interface that tests, demos and the command line use.

Invariants: every operation waits until its effect is there (a node that was powered off has no process left when the
call returns), or raises ClusterError that names what was waited for and the log to read.
Must not import a backend at module level: a backend imports this module.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Literal, Protocol

from testbed import commands
from testbed.errors import TestbedError

Address = IPv4Address | IPv6Address
ProxyMode = Literal["nftables", "iptables"]
Cni = Literal["ptp", "bridge"]
IpFamily = Literal["dual", "ipv4", "ipv6"]
BackendName = Literal["kind", "local"]
DEFAULT_NAME = "sluice"


class ClusterError(TestbedError):
    """Something about the cluster failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    """What may differ between two clusters."""

    name: str = DEFAULT_NAME
    nodes: int = 3
    proxy_mode: ProxyMode = "nftables"
    cni: Cni = "ptp"
    ip_family: IpFamily = "dual"


class Host(Protocol):
    """A machine of the testbed: a node, the control plane, or a host outside the cluster."""

    @property
    def name(self) -> str: ...

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Addresses others reach it at, IPv4 first; for an outside host those off the LAN, which pods talk to."""

    def command(self, argv: Sequence[str]) -> list[str]:
        """The command on this machine that runs a program inside the host, for callers that stream."""

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        input: str | None = None,  # noqa: A002 - subprocess's own word
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end inside the host. Raises ClusterError when it fails and `check` is set."""

    def spawn(self, name: str, argv: Sequence[str], env: Mapping[str, str] | None = None) -> int:
        """Start a program that stays; its output goes to the log `name`. Returns its pid. Ends with the host."""


class Cluster(Protocol):
    """A running or yet to be started cluster."""

    @property
    def options(self) -> ClusterOptions: ...

    @property
    def kubeconfig(self) -> Path:
        """Administrator's kubeconfig, usable from this machine."""

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes that pods run on."""

    @property
    def logs(self) -> Path:
        """Folder of the logs, one folder a host."""

    def up(self, images: Sequence[Path] = ()) -> None:
        """Start it, with the images of these OCI archives on its nodes; what an earlier cluster of that name left is
        removed first."""

    def down(self) -> None:
        """Remove every trace of it, whatever state it is in; a cluster that is not there is no error."""

    def status(self) -> Mapping[str, Mapping[str, str]]:
        """State of each component of each host, from the processes themselves."""

    def host(self, name: str) -> Host:
        """A node, the control plane (`cp`) or an outside host (`outside`, `far`)."""

    def kubectl(self, *args: str, check: bool = True, input: str | None = None) -> str:  # noqa: A002
        """Run kubectl as administrator; its standard output."""

    def load_image(self, archive: Path) -> None:
        """Make the images of an OCI archive available on every node."""

    def power_off(self, node: str) -> None:
        """Off at the plug: link down, every process gone, network state gone."""

    def boot(self, node: str) -> None:
        """Power on after `power_off`: same identity and disk, fresh network; waits until the node is Ready."""

    def pause(self, node: str) -> None:
        """Freeze every process of the node; its kernel goes on forwarding."""

    def resume(self, node: str) -> None:
        """Undo `pause`."""

    def partition(self, a: str, b: str) -> None:
        """Drop every frame between two hosts, both ways."""

    def heal(self, a: str, b: str) -> None:
        """Undo `partition`."""

    def stop(self, component: str, host: str) -> None:
        """Kill one component and leave it stopped."""

    def start(self, component: str, host: str) -> None:
        """Start a stopped component."""

    def restart(self, component: str, host: str) -> None:
        """Kill one component and start it again."""


def docker_works() -> bool:
    """Does a Docker engine answer?"""
    if shutil.which("docker", path=commands.environment()["PATH"]) is None:
        return False
    try:
        return commands.run(["docker", "info"], check=False, seconds=20).returncode == 0
    except TestbedError:
        return False


def chosen_backend() -> BackendName:
    """`kind` where a Docker engine answers, `local` elsewhere; SLUICE_TESTBED_BACKEND overrides."""
    wanted = os.environ.get("SLUICE_TESTBED_BACKEND", "")
    if wanted in ("kind", "local"):
        return "kind" if wanted == "kind" else "local"
    if wanted:
        raise ClusterError(f"SLUICE_TESTBED_BACKEND is {wanted!r}", "use 'kind' or 'local', or leave it unset")
    return "kind" if docker_works() else "local"


def open_cluster(options: ClusterOptions | None = None, *, backend: BackendName | None = None) -> Cluster:
    """The cluster of that name. A running one keeps the options it was started with, except when `up` is called."""
    options = options or ClusterOptions()
    if (backend or chosen_backend()) == "kind":
        from testbed.kind import KindCluster  # noqa: PLC0415 - a backend imports this module

        return KindCluster(options)
    from testbed.local.backend import LocalCluster  # noqa: PLC0415

    return LocalCluster(options)
