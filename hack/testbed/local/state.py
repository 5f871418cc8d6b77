"""What a local cluster keeps on disk, and where: one folder a cluster, named by the cluster."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from testbed.cluster import ClusterOptions
from testbed.local.plan import Plan


def state_root() -> Path:
    """Folder of all clusters of this user."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "sluice" / "testbed"


@dataclass(frozen=True, slots=True)
class State:
    """The folder of one cluster."""

    name: str

    @property
    def folder(self) -> Path:
        """Everything of the cluster."""
        return state_root() / "clusters" / self.name

    @property
    def logs(self) -> Path:
        """One folder a host, one file a component."""
        return self.folder / "logs"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's, for use on the machine."""
        return self.folder / "kubeconfig"

    def log(self, host: str, component: str) -> Path:
        """Log of one component."""
        return self.logs / host / f"{component}.log"

    def node(self, node: str) -> Path:
        """Disk of a node."""
        return self.folder / "nodes" / node

    def save(self, plan: Plan) -> None:
        """Remember what the cluster was started with."""
        self.folder.mkdir(parents=True, exist_ok=True)
        content = json.dumps({"link": plan.link, "options": asdict(plan.options)})
        aside = self.folder / "plan.json.partial"
        aside.write_text(content)
        aside.rename(self.folder / "plan.json")

    def load(self) -> Plan | None:
        """What the cluster was started with; None when there is no cluster."""
        try:
            content = json.loads((self.folder / "plan.json").read_text())
        except FileNotFoundError:
            return None
        return Plan(ClusterOptions(**content["options"]), content["link"])

    def remove(self, *, keep_logs: bool = False) -> None:
        """Remove the folder, or all of it but the logs."""
        for entry in self.folder.glob("*"):
            if keep_logs and entry == self.logs:
                continue
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        if self.folder.exists() and not keep_logs:
            self.folder.rmdir()


@contextmanager
def exclusive(name: str) -> Iterator[None]:
    """One operation at a time: on a cluster, or (name "all") on what clusters share."""
    folder = state_root() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
