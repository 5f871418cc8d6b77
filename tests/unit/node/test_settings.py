"""A setting is given back as it was, whenever the agent ends or starts again."""

import json
from pathlib import Path

import pytest

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
    assert Settings(root, memory).hold({"ipv4/a": "1", "ipv4/b": "5"}).changed
    assert (value(root, "a"), value(root, "b")) == ("1", "5")
    assert not Settings(root, memory).hold({"ipv4/a": "1", "ipv4/b": "5"}).changed
    (root / "ipv4/b").write_text("7")
    assert Settings(root, memory).hold({}).changed
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
    assert "ipv4/b" in settings.hold({"ipv4/b": "1"}).refused["ipv4/b"]
    assert json.loads(memory.read_text()) == {"ipv4/b": "Linux"}


def test_settings_of_a_device_that_is_gone_are_no_matter(root: Path, tmp_path: Path) -> None:
    settings = Settings(root, tmp_path / "settings.json")
    assert not settings.hold({"ipv4/gone": "1"}).changed
    settings.hold({"ipv4/a": "1"})
    (root / "ipv4/a").unlink()
    settings.hold({})
    assert settings.held(["ipv4/a", "ipv4/b"]) == {("ipv4/b", "5")}


@pytest.mark.parametrize("wanted", [{"ipv4/0": "1", "ipv4/a": "1"}, {}], ids=["to set", "to give back"])
def test_one_that_cannot_be_written_stops_no_other(root: Path, tmp_path: Path, wanted: dict[str, str]) -> None:
    memory = tmp_path / "settings.json"
    (root / "ipv4/0").symlink_to("/proc/sys/kernel/ostype")
    if not wanted:
        memory.write_text(json.dumps({"ipv4/0": "x", "ipv4/a": "7"}))
    held = Settings(root, memory).hold(wanted)
    assert held.changed
    assert held.refused.keys() == {"ipv4/0"}
    assert value(root, "a") == wanted.get("ipv4/a", "7")
    assert "ipv4/0" in json.loads(memory.read_text())
