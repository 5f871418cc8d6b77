"""Disks of nodes: a sparse file each, mounted by the node itself (node-root.sh) through a loop device.

Images are thousands of small files, which a file system of their own without a journal takes and drops many times
faster than the machine's. It need not survive the machine: nothing of a cluster does.
"""

from pathlib import Path

from testbed.local.process import run, wait_until

SIZE = 16 << 30
BLOCK_DEVICES = Path("/sys/block")


def make(folder: Path) -> None:
    """An empty disk in a node's folder, unless there is one."""
    (folder / "disk").mkdir(parents=True, exist_ok=True)
    image = folder / "disk.img"
    if not image.exists():
        with image.open("wb") as file:
            file.truncate(SIZE)
        run(["mkfs.ext4", "-q", "-O", "^has_journal", "-E", "nodiscard,lazy_itable_init=1", "-m", "0", str(image)])


def in_use(folder: Path) -> list[str]:
    """Loop devices whose file is below a folder (loop(4), backing_file)."""
    found = []
    for file in BLOCK_DEVICES.glob("loop*/loop/backing_file"):
        try:
            backing = file.read_text()
        except OSError:  # detached meanwhile
            continue
        if backing.startswith(f"{folder}/"):
            found.append(file.parts[3])
    return found


def wait_released(folder: Path) -> None:
    """Wait until no disk below a folder is in use: the kernel unmounts after the last process of a node ended."""
    wait_until(lambda: not in_use(folder), seconds=30, what=f"the disks in {folder} to be released")
