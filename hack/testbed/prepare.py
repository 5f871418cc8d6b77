"""Everything that has to be there before a cluster starts: Debian's packages, the tools, the programs, the images.

What the demo, the tests and `python -m testbed prepare` do first. Quick when everything is there. The programs, which
the processor bounds, and all else, mostly bounded by the network, are made side by side.
Invariant: when it fails or is interrupted, nothing that it started runs on.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from testbed import binaries, commands, images, prerequisites
from testbed.cluster import chosen_backend, docker_works
from testbed.images.recipe import TARGETS
from testbed.local.images import system_images
from testbed.progress import Progress

PACKAGES = "Debian packages"
PACKAGES_SECONDS = 40.0


def prepare(*, tests: bool = False) -> Mapping[str, Path]:
    """Make what is missing; the archive of each image. `tests`: also what only the tests need. Raises TestbedError."""
    local = chosen_backend() == "local"
    packages: tuple[str, ...] = ()
    if local:
        prerequisites.require_root()
        more = prerequisites.TESTS if tests else ()
        packages = prerequisites.missing((*prerequisites.LOCAL, *prerequisites.IMAGES, *more))
    # buildah may be among the packages that are not there yet
    engine = "buildah" if local and not docker_works() else None
    lacking = binaries.missing(_groups(local=local, tests=tests))
    programs = {_programs(group): group.seconds for group in lacking}
    rest = dict.fromkeys([PACKAGES] if packages else [], PACKAGES_SECONDS) | images.pending(engine)
    progress = Progress("preparing", {"programs": programs, "rest": rest})

    def build_programs() -> None:
        for group, names in lacking.items():
            with progress.step(_programs(group)):
                binaries.build(group, names)

    def make_the_rest() -> Mapping[str, Path]:
        if packages:
            with progress.step(PACKAGES):
                prerequisites.install(packages, say=progress.say)
        return images.build(engine, tuple(TARGETS), lambda _: None, progress.step)

    with progress.shown(), ThreadPoolExecutor(2) as pool:
        made = pool.submit(make_the_rest)
        _together([pool.submit(build_programs), made])
    if local:
        system_images()
    return made.result()


def _groups(*, local: bool, tests: bool) -> tuple[binaries.Group, ...]:
    if local:
        return binaries.GROUPS
    # the tests of the API server run it without a cluster
    return (*binaries.GROUPS, binaries.KIND) if tests else binaries.FOR_KIND


def _programs(group: binaries.Group) -> str:
    return f"programs: {group.name}"


def _together(work: Sequence[Future[Any]]) -> None:
    """Wait until all is done, or end what runs as soon as a part fails or somebody interrupts."""
    try:
        done, _ = wait(work, return_when=FIRST_EXCEPTION)
        for each in done:
            each.result()
    except BaseException:
        # a part that has only lost its program may start the next one
        while wait(work, timeout=0.2).not_done:
            commands.end_all()
        raise
