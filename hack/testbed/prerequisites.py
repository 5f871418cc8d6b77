"""What the machine must have: Debian packages, installed when missing; elsewhere a message that says what to install.

Only what is missing is asked for, and root is needed only then and for the local cluster itself.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from testbed.cluster import ClusterError

CNI_PLUGINS = "/usr/lib/cni/ptp"


@dataclass(frozen=True, slots=True)
class Package:
    """A Debian package and how to see that it is there: a program on PATH or, with a slash, a file."""

    name: str
    proof: str

    def present(self) -> bool:
        """Is it installed?"""
        if "/" in self.proof:
            return Path(self.proof).exists()
        return shutil.which(self.proof, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is not None


LOCAL = (
    Package("runc", "runc"),
    Package("containernetworking-plugins", CNI_PLUGINS),
    Package("nftables", "nft"),
    Package("iptables", "iptables"),
    Package("iproute2", "ip"),
    Package("procps", "sysctl"),
    Package("conntrack", "conntrack"),
    Package("ethtool", "ethtool"),
    Package("e2fsprogs", "mkfs.ext4"),
    Package("gcc", "gcc"),
    Package("libc6-dev", "/usr/include/stdlib.h"),
)
IMAGES = (Package("debootstrap", "debootstrap"), Package("buildah", "buildah"))
TESTS = (
    Package("curl", "curl"),
    Package("iputils-ping", "ping"),
)
_ENVIRONMENT: Mapping[str, str] = {"DEBIAN_FRONTEND": "noninteractive"}


def missing(packages: tuple[Package, ...] = LOCAL) -> tuple[str, ...]:
    """Names of the packages that are not there."""
    return tuple(p.name for p in packages if not p.present())


def ensure_local(*, say: Callable[[str], None] = print) -> None:
    """Everything a local cluster needs. Raises ClusterError when it cannot be had."""
    if os.geteuid() != 0:
        raise ClusterError(
            "a local cluster makes network namespaces and needs root; with a Docker engine (`docker info` answers) "
            "a kind cluster is used, which does not"
        )
    ensure(LOCAL, say=say)


def ensure(packages: tuple[Package, ...], *, say: Callable[[str], None] = print) -> None:
    """Install what is missing of Debian's packages. Raises ClusterError elsewhere than on Debian and its kin."""
    names = missing(packages)
    if not names:
        return
    if shutil.which("apt-get") is None:
        raise ClusterError(f"install these first (names of Debian's packages): {' '.join(names)}")
    say(f"installing {' '.join(names)}")
    for argv in (["apt-get", "update"], ["apt-get", "install", "--yes", "--no-install-recommends", *names]):
        result = subprocess.run(argv, env={**os.environ, **_ENVIRONMENT}, capture_output=True, text=True, check=False)
        if result.returncode:
            raise ClusterError(f"{' '.join(argv)} failed:\n{result.stdout[-2000:]}{result.stderr[-2000:]}")
