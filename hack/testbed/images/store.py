"""The cache folder of image builds: entries appear whole or not at all, one build at a time.

Invariant: a path that exists under an entry's name is complete; work in progress has another name (`.work-*`), which an
interrupted build leaves behind and the next build removes.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testbed import commands
from testbed.errors import TestbedError
from testbed.images.progress import Report


class StoreError(TestbedError):
    """The cache cannot be used."""


@dataclass(frozen=True, slots=True)
class Store:
    """Cache of image builds in one folder."""

    root: Path

    @contextmanager
    def locked(self, report: Report) -> Iterator[None]:
        """Hold the cache for this process alone; says so when it has to wait for another."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                report("waiting for another image build")
                fcntl.flock(lock, fcntl.LOCK_EX)
            for left in self.root.glob(".work-*"):
                shutil.rmtree(left)
            yield

    def unmount(self) -> None:
        """Unmount what an engine left mounted in the folder. Raises StoreError."""
        points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for point in reversed(points):
            if point.startswith(f"{self.root}/"):
                commands.run(["umount", point], remedy="end what uses it, and try again", error=StoreError)

    def entry(self, name: str, make: Callable[[Path], None]) -> Path:
        """The folder `name`, made by `make(folder)` if it is not there yet.

        Keeps only this entry of its kind (the part of the name before the last dash).
        """
        path = self.root / name
        if not path.exists():
            with self.work() as folder:
                make(folder)
                folder.rename(path)
            self.keep(path, newest=2)
        return path

    @contextmanager
    def work(self) -> Iterator[Path]:
        """A folder for work in progress on the cache's own file system, removed at the end if it is still there."""
        folder = Path(tempfile.mkdtemp(prefix=".work-", dir=self.root))
        folder.chmod(0o755)
        try:
            yield folder
        finally:
            if folder.exists():
                shutil.rmtree(folder)

    def keep(self, path: Path, *, newest: int) -> None:
        """Remove the older entries of `path`'s kind: those whose names differ only after the last dash."""
        kind = path.name.rpartition("-")[0]
        entries = sorted(self.root.glob(f"{kind}-*"), key=lambda entry: entry.stat().st_mtime, reverse=True)
        for old in entries[newest:]:
            if old.is_dir():
                shutil.rmtree(old)
            else:
                old.unlink()


def default_root() -> Path:
    """`$XDG_CACHE_HOME/sluice/images`, by default under ~/.cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "sluice" / "images"
