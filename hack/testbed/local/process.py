"""Processes of a local cluster: each host has a cgroup, and whatever runs in it is found there again.

No pid is ever remembered: a cluster is ended from what its cgroups hold, so a crash in the middle of anything leaves
nothing behind that `down` would miss, and nothing else can be hit.
Works on cgroup v1 (one hierarchy a controller) and v2. Must not know what the processes are.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from testbed import commands
from testbed.cluster import ClusterError

CGROUPS = Path("/sys/fs/cgroup")
# cgroup v1: processes are kept track of in one hierarchy and frozen by another
V1_JOINED = ("pids", "freezer")
V2_CONTROLLERS = ("cpuset", "cpu", "io", "memory", "hugetlb", "pids")
POLL = 0.05


def run(
    argv: Sequence[str],
    *,
    check: bool = True,
    stdin: str | IO[bytes] | None = None,
    shown: Sequence[str] | str | None = None,
    remedy: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end. Raises ClusterError with its output when it fails and `check` is set; the error shows
    the command `shown` in place of `argv`."""
    return commands.run(argv, check=check, stdin=stdin, shown=shown, remedy=remedy, error=ClusterError)


def wait_until(condition: Callable[[], bool], *, seconds: float, what: str, log: Path | None = None) -> None:
    """Wait for a condition. Raises ClusterError naming it and the log to read when `seconds` have passed."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise ClusterError(f"waited {seconds:g} s for {what}", f"see {log}" if log else "")
        time.sleep(POLL)


@dataclass(frozen=True, slots=True)
class Process:
    """A process as the machine sees it. `depth` is the number of pid namespaces below the machine's, `inner` its
    pid in the innermost."""

    pid: int
    name: str
    depth: int
    inner: int


@dataclass(frozen=True, slots=True)
class Cgroup:
    """A subtree of cgroups, the same path in every hierarchy. Processes started here go into its child `system`;
    container runtimes add siblings of it."""

    path: str

    @staticmethod
    def unified() -> bool:
        """Is cgroup v2 the machine's only one?"""
        return (CGROUPS / "cgroup.controllers").exists()

    def create(self) -> None:
        """Make it, ready to take processes and with every controller that a container runtime may want."""
        if self.unified():
            level = CGROUPS
            for part in Path(self.path).parts:
                _delegate(level)
                level /= part
                level.mkdir(exist_ok=True)
            _delegate(level)
            (level / "system").mkdir(exist_ok=True)
            return
        for hierarchy in _hierarchies():
            folder = hierarchy / self.path
            (folder / "system" if hierarchy.name in V1_JOINED else folder).mkdir(parents=True, exist_ok=True)

    def joining(self, argv: Sequence[str], *, then: str = 'exec "$@"', zero: str = "sh") -> list[str]:
        """The command that enters the cgroup and then becomes `argv`, or does with it what the shell script `then`
        says; `zero` is its $0."""
        if self.unified():
            files = [CGROUPS / self.path / "system" / "cgroup.procs"]
        else:
            files = [CGROUPS / name / self.path / "system" / "cgroup.procs" for name in V1_JOINED]
        enter = "".join(f"echo 0 > {file} && " for file in files)
        return ["/bin/sh", "-c", f"{enter}{then}", zero, *argv]

    def processes(self, *, system_only: bool = False) -> list[Process]:
        """Everything that runs in the subtree, or only what was started by `joining`."""
        top = CGROUPS / self.path if self.unified() else CGROUPS / V1_JOINED[0] / self.path
        pids: list[int] = []
        for file in (top / "system").rglob("cgroup.procs") if system_only else top.rglob("cgroup.procs"):
            try:
                pids += map(int, file.read_text().split())
            except OSError:  # the cgroup went away meanwhile
                continue
        return [p for p in map(_process, pids) if p]

    def kill(self, *, seconds: float = 20) -> None:
        """End every process in the subtree. Raises ClusterError when some outlive SIGKILL."""

        def gone() -> bool:
            left = self.processes()
            for process in left:
                kill(process.pid)
            return not left

        self.freeze(frozen=False)  # a frozen process does not die
        wait_until(gone, seconds=seconds, what=f"the processes of {self.path} to end")

    def freeze(self, *, frozen: bool) -> None:
        """Stop every process of the subtree at once, or let them go on. Waits until it is so."""
        if self.unified():
            folder, file, values = CGROUPS / self.path, "cgroup.freeze", ("0", "1")
        else:
            folder, file, values = CGROUPS / "freezer" / self.path, "freezer.state", ("THAWED", "FROZEN")
        if not folder.exists():
            return
        (folder / file).write_text(values[frozen])
        wait_until(lambda: self.frozen() == frozen, seconds=20, what=f"{self.path} to be {values[frozen]}")

    def frozen(self) -> bool:
        """Is it stopped by `freeze`?"""
        try:
            if self.unified():
                return "frozen 1" in (CGROUPS / self.path / "cgroup.events").read_text()
            return (CGROUPS / "freezer" / self.path / "freezer.state").read_text().strip() == "FROZEN"
        except FileNotFoundError:
            return False

    def children(self) -> list["Cgroup"]:
        """Subtrees directly below."""
        folders = {f.name for h in _hierarchies() for f in (h / self.path).glob("*/")}
        return [Cgroup(f"{self.path}/{name}") for name in sorted(folders)]

    def exists(self) -> bool:
        """Is any of it there?"""
        return any((h / self.path).exists() for h in _hierarchies())

    def remove(self) -> None:
        """Remove the (empty) subtree from every hierarchy."""
        for hierarchy in _hierarchies():
            top = hierarchy / self.path
            folders = [Path(folder) for folder, _, _ in os.walk(top, topdown=False)]
            for folder in folders:
                # a cgroup is busy for a moment after its last process ended
                wait_until(lambda f=folder: _removed(f), seconds=10, what=f"{folder} to be removable")  # type: ignore[misc]
            for parent in list(Path(self.path).parents)[:-1]:
                try:
                    (hierarchy / parent).rmdir()
                except OSError:  # another cluster's, or not there
                    break


def alive(pid: int) -> bool:
    """Does a process run? One that only waits to be reaped does not."""
    return _process(pid) is not None


def kill(pid: int) -> None:
    """SIGKILL a process that may be gone already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def spawn(argv: Sequence[str], *, cgroup: Cgroup, log: Path) -> int:
    """Start a program that outlives this one, in the cgroup, its output appended to `log`; its pid."""
    log.parent.mkdir(parents=True, exist_ok=True)
    # the shell ends at once: the program is the machine's child, not ours, so that nobody here has to wait for it
    then = '{ (cd / && exec setsid "$@") </dev/null >>"$0" 2>&1 & echo $!; }'
    return int(run(cgroup.joining(argv, then=then, zero=str(log)), shown=argv).stdout)


def _hierarchies() -> Iterator[Path]:
    if Cgroup.unified():
        yield CGROUPS
        return
    for folder in sorted(CGROUPS.iterdir()):
        # cpu and cpuacct may be two names of one hierarchy
        if folder.is_dir() and not folder.is_symlink() and (folder / "cgroup.procs").exists():
            yield folder


def _delegate(folder: Path) -> None:
    available = (folder / "cgroup.controllers").read_text().split()
    on = (folder / "cgroup.subtree_control").read_text().split()
    for controller in V2_CONTROLLERS:
        if controller in available and controller not in on:
            (folder / "cgroup.subtree_control").write_text(f"+{controller}")


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _process(pid: int) -> Process | None:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return parse_status(pid, status)


def parse_status(pid: int, status: str) -> Process | None:
    """A process from its /proc/<pid>/status (proc(5)); None for one that has ended and is only not yet reaped."""
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    if fields["State"].split()[0] in "ZX":
        return None
    inner = fields["NSpid"].split()
    return Process(pid, fields["Name"].strip(), len(inner) - 1, int(inner[-1]))
