"""Hosts of a local cluster as things to run programs in."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed import binaries
from testbed.cluster import Address, ClusterError
from testbed.local.plan import Plan
from testbed.local.process import Cgroup, Process, run, spawn
from testbed.local.state import State

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NODE_PATH = f"/testbed/kubernetes:/testbed/containerd:{SYSTEM_PATH}"
# PID 1 of a node is the pause program, see node-root.sh
INIT = "pause"
COMM_LENGTH = 15  # of a process's name, proc_pid_comm(5)


@dataclass(frozen=True, slots=True)
class LocalHost:
    """A host made of a network namespace: the control plane or a host outside. Sees the machine's files."""

    plan: Plan
    state: State
    name: str

    @property
    def addresses(self) -> tuple[Address, ...]:
        """What others reach it at."""
        return self.plan.addresses_of(self.name)

    @property
    def cgroup(self) -> Cgroup:
        """Where its processes are."""
        return Cgroup(f"{self.plan.cgroup}/{self.name}")

    def command(self, argv: Sequence[str]) -> list[str]:
        """The command on the machine that runs `argv` inside. Programs of Kubernetes are on its PATH."""
        return self.cgroup.joining(self.entering(argv))

    def entering(self, argv: Sequence[str]) -> list[str]:
        """Like `command`, for what is in the cgroup already."""
        folders = [str(binaries.folder(g)) for g in (binaries.KUBERNETES, binaries.ETCD)]
        path = ":".join([*folders, os.environ.get("PATH", SYSTEM_PATH)])
        return ["ip", "netns", "exec", self.plan.netns(self.name), "env", f"PATH={path}", *argv]

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        input: str | None = None,  # noqa: A002 - subprocess's own word
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end inside. Raises ClusterError when it fails and `check` is set."""
        return run(self.command(argv), check=check, stdin=input, shown=argv)

    def spawn(self, name: str, argv: Sequence[str], env: Mapping[str, str] | None = None) -> int:
        """Start a program that stays; its pid on the machine. Ends with the host."""
        settings = [f"{key}={value}" for key, value in (env or {}).items()]
        with_env = ["env", *settings, *argv] if settings else argv
        return spawn(self.entering(with_env), cgroup=self.cgroup, log=self.log(name))

    def log(self, name: str) -> Path:
        """Where a program writes."""
        return self.state.log(self.name, name)

    def component(self, name: str) -> list[Process]:
        """Running processes of a component."""
        return [p for p in self.cgroup.processes(system_only=True) if p.name == name[:COMM_LENGTH]]


@dataclass(frozen=True, slots=True)
class LocalNode(LocalHost):
    """A node: a light system container with a root of its own."""

    def init(self) -> Process | None:
        """PID 1 of the node, None when it is off."""
        for process in self.cgroup.processes(system_only=True):
            if process.name == INIT and process.inner == 1:
                return process
        return None

    def entering(self, argv: Sequence[str]) -> list[str]:
        """The command that runs `argv` inside, with nothing of the machine's environment. Raises ClusterError when the
        node is off."""
        init = self.init()
        if init is None:
            raise ClusterError(f"node {self.name} is off", "`boot` it first")
        namespaces = ["--mount", "--uts", "--ipc", "--net", "--pid"]
        environment = ["env", "-i", f"PATH={NODE_PATH}", "HOME=/root", "TERM=dumb"]
        return ["nsenter", f"--target={init.pid}", *namespaces, "--", *environment, *argv]
