"""What the machine must have: Debian packages, installed when missing; elsewhere a message that says what to install.

Only what is missing is asked for, and root is needed only then and for the local cluster itself. A program counts as
there when it is where Debian's packages put it (commands.SYSTEM_PATH), which is also where it is called.
Must not import anything but the standard library and the modules of testbed that hold to that: the environment is made
with it.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed import commands
from testbed.errors import TestbedError

CNI_PLUGINS = "/usr/lib/cni/ptp"
APT_GET = Path("/usr/bin/apt-get")
# seconds that apt-get waits for another one
PATIENCE = 300


class PrerequisiteError(TestbedError):
    """The machine lacks something that could not be installed."""


@dataclass(frozen=True, slots=True)
class Package:
    """A Debian package and how to see that it is there: a program of the system or, with a slash, a file."""

    name: str
    proof: str

    def present(self) -> bool:
        """Is it installed?"""
        if "/" in self.proof:
            return Path(self.proof).exists()
        return shutil.which(self.proof, path=commands.SYSTEM_PATH) is not None


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
IMAGES = (
    Package("debootstrap", "debootstrap"),
    Package("buildah", "buildah"),
    # only recommended by buildah, which from Debian 13 on does not start without it
    Package("netavark", "/usr/lib/podman/netavark"),
)
TESTS = (
    Package("curl", "curl"),
    Package("iputils-ping", "ping"),
)


def missing(packages: Sequence[Package] = LOCAL) -> tuple[str, ...]:
    """Names of the packages that are not there."""
    return tuple(p.name for p in packages if not p.present())


def require_root() -> None:
    """Raises PrerequisiteError where a local cluster cannot be made."""
    if os.geteuid() != 0:
        raise PrerequisiteError(
            "a local cluster makes network namespaces and needs root",
            "become root, or start a Docker engine (`docker info` answers): a kind cluster is used then",
        )


def ensure_local(*, say: Callable[[str], None] = print) -> None:
    """Everything a local cluster needs. Raises PrerequisiteError when it cannot be had."""
    require_root()
    ensure(LOCAL, say=say)


def ensure(packages: Sequence[Package], *, say: Callable[[str], None] = print) -> None:
    """Install what is missing of Debian's packages. Raises PrerequisiteError."""
    names = missing(packages)
    if names:
        install(names, say=say)


def install(names: Sequence[str], *, say: Callable[[str], None] = print) -> None:
    """Install Debian packages. Raises PrerequisiteError where that is not possible."""
    words = " ".join(names)
    if not APT_GET.exists():
        raise PrerequisiteError(f"missing here, by Debian's names: {words}", "install these, and try again")
    if os.geteuid() != 0:
        raise PrerequisiteError(f"missing Debian packages: {words}", f"as root: apt-get install {words}")
    say(f"installing {words}")
    remedy = f"mend what apt-get says (network, /etc/apt), or install these yourself: {words}"
    env = commands.environment(DEBIAN_FRONTEND="noninteractive")
    for argv in (["update"], ["install", "--yes", "--no-install-recommends", *names]):
        # a new machine may be busy with upgrades of its own
        command = [str(APT_GET), f"--option=DPkg::Lock::Timeout={PATIENCE}", *argv]
        commands.run(command, shown=f"apt-get {argv[0]}", env=env, remedy=remedy, error=PrerequisiteError)
