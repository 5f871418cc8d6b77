"""Building an image without a Docker engine: what buildah mounts is gone with it, so that its layers can be removed."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from testbed import commands, images
from testbed.images.engines import Buildah, EngineError
from testbed.local.process import wait_until

RECIPE = Path(images.__file__).parents[2] / "images"
NOTHING = "int main(void) { return 0; }\n"
WAITS = "#include <unistd.h>\nint main(void) { for (;;) pause(); }\n"
DOCKERFILE = """FROM scratch AS first
COPY nothing waits /
RUN --mount=type=bind,source=data,target=/data ["/nothing"]

FROM first AS endless
RUN --mount=type=bind,source=data,target=/data ["/waits", "for-ever"]

FROM scratch AS second
COPY --from=first /nothing /nothing
RUN ["/nothing"]
"""

pytestmark = pytest.mark.skipif(shutil.which("buildah", path=commands.SYSTEM_PATH) is None, reason="needs buildah")


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """What is built: programs that do nothing or never end, run with a bind mount and copied from stage to stage."""
    folder = tmp_path / "context"
    (folder / "data").mkdir(parents=True)
    (folder / "Dockerfile").write_text(DOCKERFILE)
    for name, source in (("nothing", NOTHING), ("waits", WAITS)):
        commands.run(["gcc", "-static", "-x", "c", "-o", str(folder / name), "-"], stdin=source)
    return folder


def mounted_below(folder: Path) -> list[str]:
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if point.startswith(f"{folder}/")]


def running(argv: Sequence[str]) -> bool:
    wanted = "".join(f"{word}\0" for word in argv).encode()
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if file.read_bytes() == wanted:
                return True
    return False


def build(storage: Path, context: Path, into: Path, target: str = "second") -> None:
    engine = Buildah(storage, RECIPE / "policy.json")
    engine.build(target=target, dockerfile=context / "Dockerfile", context=context, base="scratch", layout=into)
    assert (into / "index.json").exists()


def test_a_build_leaves_no_mount_and_can_be_cleaned_away_and_done_again(tmp_path: Path, context: Path) -> None:
    storage = tmp_path / "storage"
    build(storage, context, tmp_path / "one")
    assert mounted_below(tmp_path) == []
    build(storage, context, tmp_path / "cached")
    shutil.rmtree(storage)
    build(storage, context, tmp_path / "again")


def test_a_build_that_is_interrupted_leaves_no_mount_and_no_process_and_the_next_one_works(
    tmp_path: Path, context: Path
) -> None:
    storage = tmp_path / "storage"
    with ThreadPoolExecutor(1) as pool:
        endless = pool.submit(build, storage, context, tmp_path / "never", "endless")
        wait_until(lambda: endless.done() or running(["/waits", "for-ever"]), seconds=30, what="the build to run")
        commands.end_all()
        with pytest.raises(EngineError, match="buildah bud of endless ended with status"):
            endless.result(timeout=10)
    assert mounted_below(tmp_path) == []
    assert not running(["/waits", "for-ever"])
    build(storage, context, tmp_path / "after")
    shutil.rmtree(storage)


def test_what_is_contained_ends_with_whoever_waits_for_it_even_by_sigkill() -> None:
    argv = ["sleep", str(100_000 + os.getpid())]
    script = f"from testbed import commands; commands.run([*commands.CONTAINED, *{argv}])"
    with subprocess.Popen(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(RECIPE.parent)}
    ) as waiting:
        wait_until(lambda: running(argv), seconds=20, what="the program to run")
        waiting.kill()
    wait_until(lambda: not running(argv), seconds=5, what="the program to end")


def test_cleaning_takes_away_what_an_older_build_left_mounted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    left = tmp_path / "sluice/images/storage/overlay/merged"
    left.mkdir(parents=True)
    commands.run(["mount", "-t", "tmpfs", "tmpfs", str(left)])
    try:
        images.clean(progress=lambda _: None)
        assert [path.name for path in (tmp_path / "sluice/images").iterdir()] == ["lock"]
    finally:
        commands.run(["umount", str(left)], check=False)
