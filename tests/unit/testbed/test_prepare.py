"""Preparing: everything that is missing, side by side, and nothing that runs on when a part fails."""

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from testbed import binaries, commands, images, prepare, prerequisites
from testbed.errors import TestbedError, ended

ARCHIVES = {"agent": Path("/agent.tar")}


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine is looked at or changed."""
    monkeypatch.setattr(prepare, "chosen_backend", lambda: "local")
    monkeypatch.setattr(prepare, "docker_works", lambda: False)
    monkeypatch.setattr(prerequisites, "require_root", lambda: None)
    monkeypatch.setattr(prerequisites, "missing", lambda packages: ())
    monkeypatch.setattr(prepare, "system_images", lambda: ())


def lacking(monkeypatch: pytest.MonkeyPatch, *, programs: bool, pictures: bool) -> None:
    monkeypatch.setattr(binaries, "missing", lambda groups: {binaries.ETCD: ["etcd"]} if programs else {})
    monkeypatch.setattr(images, "pending", lambda engine: {"images: agent": 10.0} if pictures else {})


def image_building(work: Callable[[], None]) -> Callable[..., Mapping[str, Path]]:
    def build(
        _engine: str, _targets: object, _progress: object, step: Callable[[str], AbstractContextManager[None]]
    ) -> Mapping[str, Path]:
        with step("images: agent"):
            work()
        return ARCHIVES

    return build


def test_the_images_do_not_wait_for_the_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking(monkeypatch, programs=True, pictures=True)
    meeting = threading.Barrier(2, timeout=10)
    monkeypatch.setattr(binaries, "build", lambda group, programs: meeting.wait())
    monkeypatch.setattr(images, "build", image_building(lambda: meeting.wait() and None))
    assert prepare.prepare() == ARCHIVES


def test_when_a_part_fails_the_other_is_ended_and_the_failure_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lacking(monkeypatch, programs=True, pictures=True)
    started = threading.Event()

    def endless() -> None:
        started.set()
        commands.run(["sleep", "600"], remedy="wake it")

    def failing(_group: object, _programs: object) -> None:
        assert started.wait(10)
        raise TestbedError("building etcd ended with status 1", "see that the module proxy is reachable")

    monkeypatch.setattr(binaries, "build", failing)
    monkeypatch.setattr(images, "build", image_building(endless))
    before = time.monotonic()
    assert ended(lambda: 0 if prepare.prepare() else 1) == 1
    assert time.monotonic() - before < 30
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == "error: building etcd ended with status 1: see that the module proxy is reachable"


def test_when_everything_is_there_nothing_is_fetched_and_nothing_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lacking(monkeypatch, programs=False, pictures=False)
    monkeypatch.setattr(prerequisites, "install", lambda *_, **__: pytest.fail("nothing is missing"))
    monkeypatch.setattr(images, "build", lambda *_: ARCHIVES)
    assert prepare.prepare() == ARCHIVES
    assert capsys.readouterr() == ("", "")


def test_programs_are_built_while_packages_are_installed_and_images_after(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking(monkeypatch, programs=True, pictures=True)
    monkeypatch.setattr(prerequisites, "missing", lambda packages: ("buildah",))
    meeting, order = threading.Barrier(2, timeout=10), []
    monkeypatch.setattr(binaries, "build", lambda group, programs: meeting.wait())

    def install(names: tuple[str, ...], *, say: object) -> None:
        meeting.wait()
        order.append(names)

    monkeypatch.setattr(prerequisites, "install", install)
    monkeypatch.setattr(images, "build", image_building(lambda: order.append(("images",))))
    assert prepare.prepare() == ARCHIVES
    assert order == [("buildah",), ("images",)]


def test_what_a_program_started_ends_with_it(tmp_path: Path) -> None:
    """`go build` starts compilers: ending it must end them."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    failed: list[TestbedError] = []

    def wait_for_it() -> None:
        try:
            commands.run(["sh", "-c", f"sleep 600 & exec 3<{pipe}; wait"])
        except TestbedError as error:
            failed.append(error)

    waiting = threading.Thread(target=wait_for_it)
    waiting.start()
    with pipe.open("w"):  # opens once the other side does
        commands.end_all()
        waiting.join(10)
    # `sleep` held its standard output open: had it lived on, the reading of it would not have ended
    assert [error.message for error in failed] == [f"sh -c 'sleep 600 & exec 3<{pipe}; wait' ended with status -15"]
