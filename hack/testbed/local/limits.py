"""Limits of the machine that a cluster would run into later, with a message nobody understands."""

from pathlib import Path

from testbed.cluster import ClusterError

INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
# measured: kubelet 6, containerd 2, kube-proxy 1; API server 3; the rest is for pods
PER_NODE, PER_CLUSTER = 10, 6


def check_inotify(*, nodes: int) -> None:
    """Raises ClusterError when the kernel would refuse the inotify instances of one more cluster (inotify(7)): kubelets
    then end with "too many open files"."""
    allowed, used = int(INOTIFY.read_text()), _instances()
    if shortage(nodes=nodes, allowed=allowed, used=used) > 0:
        raise ClusterError(
            f"{used} of the {allowed} inotify instances of this user are in use, too many for {nodes} more nodes",
            "remove another cluster (`down --name ...`) or allow more: sysctl -w fs.inotify.max_user_instances=1024",
        )


def shortage(*, nodes: int, allowed: int, used: int) -> int:
    """How many inotify instances a cluster would lack; not positive when there are enough."""
    return used + PER_NODE * nodes + PER_CLUSTER - allowed


def _instances() -> int:
    return sum(_is_inotify(fd) for folder in Path("/proc").glob("[0-9]*/fd") for fd in _entries(folder))


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:  # the process is gone
        return []


def _is_inotify(descriptor: Path) -> bool:
    try:
        return str(descriptor.readlink()) == "anon_inode:inotify"
    except OSError:  # closed meanwhile
        return False
