"""A Debian that has never seen the project: a root with four packages, entered with nothing of this machine but its way
to the package registries.

The root is unpacked anew for every machine, from an archive that debootstrap made (kept in the project's cache). What
runs in it is in mount and process namespaces of its own, so that its end, however it comes, leaves no mount and no
process; the folder is removed at the end and before the next start.
"""

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

from testbed import commands, tools

PROJECT = Path(__file__).resolve().parents[2]
PACKAGES = ("python3", "make", "git", "ca-certificates")
PATH = "/usr/local/bin:/usr/bin:/bin"
HOME = "/root"
CHECKOUT = "/root/sluice"
CACHE = "/root/.cache/sluice"
#: Where a machine is told how to reach the registries.
WAYS = re.compile(
    r"(https?|all|no)_proxy|.*(CERT|CA_BUNDLE|CAINFO).*|PIP_(INDEX_URL|EXTRA_INDEX_URL|TRUSTED_HOST|DEFAULT_TIMEOUT)"
    r"|UV_(DEFAULT_INDEX|INDEX|INDEX_URL|HTTP_TIMEOUT)|GO(PROXY|NOPROXY|SUMDB|NOSUMDB|PRIVATE|INSECURE)",
    re.IGNORECASE,
)
SETTINGS = ("etc/resolv.conf", "etc/hosts", "etc/pip.conf", "etc/ssl/certs/ca-certificates.crt")
NOT_COPIED = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", ".hypothesis", "dist")
# what is mounted in the root: as a machine has it, and the folders of $2, read-only
ENTER = """set -eu
root=$1 given=$2 at=$3; shift 3
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
if [ -n "$given" ]; then mkdir -p "$root$at"; mount --bind -o ro "$given" "$root$at"; fi
exec chroot "$root" env -i "$@"
"""


@dataclass(frozen=True, slots=True)
class BareMachine:
    """A machine in the folder `root`; `given` is the folder of built programs that it gets."""

    root: Path
    given: Path | None = None

    def run(self, *argv: str, seconds: float = 900, env: Sequence[str] = ()) -> CompletedProcess[str]:
        """Run a command in the checkout, to its end; `env` is added as NAME=value."""
        ways = [f"{name}={value}" for name, value in os.environ.items() if WAYS.fullmatch(name)]
        inside = ["HOME=" + HOME, "PATH=" + PATH, *ways, *env, "sh", "-c", f'cd {CHECKOUT} && exec "$@"', "sh", *argv]
        enter = ["sh", "-c", ENTER, "sh", str(self.root), str(self.given or ""), f"{CACHE}/bin", *inside]
        return commands.run([*commands.CONTAINED, *enter], check=False, shown=argv, seconds=seconds)

    def path(self, inside: str) -> Path:
        """A file of the machine, seen from here."""
        return self.root / inside.lstrip("/")


@contextmanager
def bare_machine(suite: str, *, given: Path | None) -> Iterator[BareMachine]:
    """A new machine with the Debian `suite` and this checkout in it, removed at the end; one at a time."""
    _folder().mkdir(parents=True, exist_ok=True)
    with (_folder() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        machine = _make(suite, given)
        try:
            yield machine
        finally:
            shutil.rmtree(machine.root)


def _make(suite: str, given: Path | None) -> BareMachine:
    archive = _archive(suite)
    root = _folder() / f"machine-{suite}"
    if root.exists():
        shutil.rmtree(root)
    root.mkdir(parents=True)
    commands.run(["tar", "--extract", "--numeric-owner", f"--file={archive}", f"--directory={root}"])
    for name in SETTINGS:
        if Path("/", name).exists():
            shutil.copyfile(Path("/", name), root / name)
    reach = [line for line in commands.run(["apt-config", "dump"]).stdout.splitlines() if line.startswith("Acquire::")]
    (root / "etc/apt/apt.conf.d/90machine").write_text("\n".join(reach) + "\n")
    # it is thrown away: nothing has to be on the disk before the next file is written
    (root / "etc/dpkg/dpkg.cfg.d/fast").write_text("force-unsafe-io\n")
    shutil.copytree(PROJECT, root / CHECKOUT.lstrip("/"), ignore=NOT_COPIED, symlinks=True)
    return BareMachine(root, given)


def _folder() -> Path:
    return tools.cache_root() / "bare"


def _archive(suite: str) -> Path:
    """The root as debootstrap makes it."""
    key = hashlib.sha256(repr((suite, PACKAGES)).encode()).hexdigest()[:16]
    archive = _folder() / f"{suite}-{key}.tar"
    if archive.exists():
        return archive
    root = _folder() / f"new-{suite}"
    if root.exists():
        shutil.rmtree(root)
    strap = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", suite, str(root)]
    commands.run([*commands.CONTAINED, *strap], shown=f"debootstrap {suite}", remedy="see that Debian is reachable")
    shutil.rmtree(root / "var/cache/apt/archives")
    aside = archive.with_suffix(".partial")
    commands.run(["tar", "--create", "--numeric-owner", f"--file={aside}", f"--directory={root}", "."])
    aside.rename(archive)
    shutil.rmtree(root)
    return archive
