"""Everything that has to be there before a cluster starts: Debian's packages, the tools, the programs, the images.

What the demo, the tests and `python -m testbed prepare` do first. Quick when everything is there. The programs, which
the processor bounds, and the images, mostly bounded by the network, are made side by side.
Invariant: when it fails or is interrupted, nothing that it started runs on.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from testbed import binaries, commands, images, prerequisites, tools
from testbed.cluster import chosen_backend
from testbed.images.recipe import TARGETS
from testbed.local.images import system_images
from testbed.progress import Progress

Say = Callable[[str], None]


def prepare(*, tests: bool = False, say: Say = print) -> Mapping[str, Path]:
    """Make what is missing; the archive of each image. `tests`: also what only the tests need. Raises TestbedError."""
    local = chosen_backend() == "local"
    if local:
        prerequisites.ensure_local(say=say)
        more = prerequisites.TESTS if tests else ()
        prerequisites.ensure((*prerequisites.IMAGES, *more), say=say)
    groups = _groups(local=local, tests=tests)
    lacking = binaries.missing(groups)
    pending = images.pending()
    programs = {_programs(group): group.seconds for group in lacking}
    if lacking or pending:
        tools.ensure(tools.UV, tools.PIP, *([tools.GO] if lacking else []), say=say)
    progress = Progress("preparing", {"programs": programs, "images": pending})

    def build_programs() -> None:
        for group, names in lacking.items():
            with progress.step(_programs(group)):
                binaries.build(group, names)

    def build_images() -> Mapping[str, Path]:
        return images.build(targets=tuple(TARGETS), progress=lambda _: None, step=progress.step)

    with progress.shown(), ThreadPoolExecutor(2) as pool:
        made = pool.submit(build_images)
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
