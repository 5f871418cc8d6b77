"""What a run left on the machine: processes, mounts, network namespaces, links, loop devices, cgroups.

A run marks its processes by an environment variable; everything else is what is there after it and was not before it.
Only looks: whoever left something is to be mended, not swept up after.
"""

import json
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from testbed import commands
from testbed.local.plan import netns_prefix
from testbed.local.state import state_root

MARK: Final = "SLUICE_RUN"
"""Environment variable that every process of a run inherits."""


_CLUSTER: Final = re.compile(
    rf"{re.escape(netns_prefix('@')).replace('@', '([^./]+)')}|link sl-(.+)|/sluice-testbed/([^/]+)|/clusters/([^/]+)/"
)


def standing() -> frozenset[str]:
    """Everything of the machine that outlives the process which made it, a line each."""
    return frozenset((*_mounts(), *_namespaces(), *_links(), *_loop_devices(), *_cgroups()))


def left(before: Collection[str], after: Collection[str], *, others: Collection[str]) -> list[str]:
    """What is new since `before` and belongs to none of the clusters called `others`, which live beside the run."""
    return sorted(line for line in set(after) - set(before) if cluster_of(line) not in others)


def cluster_of(line: str) -> str | None:
    """Name of the local cluster that an entry belongs to, None when it belongs to none."""
    found = _CLUSTER.search(line)
    return next(name for name in found.groups() if name is not None) if found else None


def other_clusters(own: Collection[str]) -> list[str]:
    """Names of the local clusters that are there, without `own`."""
    folder = state_root() / "clusters"
    return sorted(path.name for path in folder.glob("*") if path.name not in own)


def processes(mark: str) -> list[str]:
    """The running processes whose environment bears the mark, but this one."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            marked = f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0")
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:  # it has ended, or is not ours to see
            continue
        if marked and int(folder.name) != os.getpid():
            found.append(f"process {folder.name}: {command[:200]}")
    return sorted(found)


def _mounts() -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        yield f"mount {line.split()[4]}"


def _namespaces() -> Iterator[str]:
    folder = Path("/run/netns")
    return (f"namespace {path.name}" for path in (folder.iterdir() if folder.exists() else ()))


def _links() -> Iterator[str]:
    return (f"link {path.name}" for path in Path("/sys/class/net").iterdir())


def _loop_devices() -> Iterator[str]:
    """Those that have a file behind them."""
    shown = commands.run(["losetup", "--json", "--list"], check=False)
    if shown.returncode == 0 and shown.stdout.strip():
        for device in json.loads(shown.stdout)["loopdevices"]:
            yield f"loop device of {device['back-file']}"


def _cgroups() -> Iterator[str]:
    for folder in Path("/sys/fs/cgroup").glob("**/sluice-testbed/*"):
        if folder.is_dir():
            yield f"cgroup {folder}"
