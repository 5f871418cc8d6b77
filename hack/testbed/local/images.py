"""The two images a cluster cannot start without: the pause program and CoreDNS, made from static programs.

Kept in the cache under a hash of what they are made from.
"""

import hashlib
import platform
import tempfile
from pathlib import Path

from testbed import binaries, tools
from testbed.local.config import PAUSE_IMAGE
from testbed.local.dns import COREDNS_IMAGE
from testbed.local.oci import write_archive
from testbed.local.process import run

SOURCE = Path(__file__).with_name("pause.c")


def folder() -> Path:
    """Where they are kept."""
    return tools.cache_root() / "system-images"


def pause_program() -> Path:
    """The pause program, compiled when its source changed."""
    target = folder() / f"pause-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        remedy = "see what gcc says; it comes with the packages gcc and libc6-dev"
        with tempfile.TemporaryDirectory(prefix=".", dir=target.parent) as work:
            aside = Path(work) / "pause"
            argv = ["gcc", "-Os", "-static", "-s", "-o", str(aside), str(SOURCE)]
            run(argv, shown="gcc of the pause program", remedy=remedy)
            aside.rename(target)
    return target


def system_images() -> tuple[Path, ...]:
    """Archives to import on every node before its kubelet starts."""
    pause = pause_program()
    coredns = binaries.program_path(binaries.COREDNS, "coredns")
    pause_archive = pause.with_suffix(".tar")
    coredns_archive = folder() / f"{coredns.parent.name}.tar"
    for archive, image, program in (
        (pause_archive, PAUSE_IMAGE, pause),
        (coredns_archive, COREDNS_IMAGE, coredns),
    ):
        if not archive.exists():
            path = f"/{image.rsplit('/', 1)[1].split(':')[0]}"
            write_archive(archive, image, files={path: program}, entrypoint=[path], machine=platform.machine())
    return (pause_archive, coredns_archive)
