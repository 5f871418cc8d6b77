"""A setting is given back as it was, whenever the agent ends or starts again."""

import json
from pathlib import Path

import pytest

from sluice_node.kernel.errors import KernelError
from sluice_node.kernel.settings import Settings


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "net"
    (made / "ipv4").mkdir(parents=True)
    (made / "ipv4/a").write_text("0\n")
    (made / "ipv4/b").write_text("5\n")
    return made


def value(root: Path, name: str) -> str:
    return (root / "ipv4" / name).read_text().strip()


def test_what_was_changed_is_given_back_by_another_process(root: Path, tmp_path: Path) -> None:
    memory = tmp_path / "state" / "settings.json"
    assert Settings(root, memory).hold({"ipv4/a": "1", "ipv4/b": "5"})
    assert (value(root, "a"), value(root, "b")) == ("1", "5")
    assert not Settings(root, memory).hold({"ipv4/a": "1", "ipv4/b": "5"})
    (root / "ipv4/b").write_text("7")
    assert Settings(root, memory).hold({})
    assert (value(root, "a"), value(root, "b")) == ("0", "7")
    assert not memory.exists()


def test_the_first_value_is_the_one_remembered(root: Path, tmp_path: Path) -> None:
    settings = Settings(root, tmp_path / "settings.json")
    settings.hold({"ipv4/a": "1"})
    (root / "ipv4/a").write_text("9")
    settings.hold({"ipv4/a": "1"})
    settings.hold({})
    assert value(root, "a") == "0"


def test_it_is_written_down_before_it_is_changed(root: Path, tmp_path: Path) -> None:
    memory = tmp_path / "settings.json"
    settings = Settings(root, memory)
    (root / "ipv4/b").unlink()
    (root / "ipv4/b").symlink_to("/proc/sys/kernel/ostype")  # can be read, and by nobody be written
    with pytest.raises(KernelError, match="ipv4/b"):
        settings.hold({"ipv4/b": "1"})
    assert json.loads(memory.read_text()) == {"ipv4/b": "Linux"}


def test_settings_of_a_device_that_is_gone_are_no_matter(root: Path, tmp_path: Path) -> None:
    settings = Settings(root, tmp_path / "settings.json")
    assert not settings.hold({"ipv4/gone": "1"})
    settings.hold({"ipv4/a": "1"})
    (root / "ipv4/a").unlink()
    settings.hold({})
    assert settings.held(["ipv4/a", "ipv4/b"]) == {("ipv4/b", "5")}
