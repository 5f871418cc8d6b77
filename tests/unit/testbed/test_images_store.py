"""What the image cache holds is whole, and old entries go."""

import os
from pathlib import Path

import pytest

from testbed.images.store import Store


def quiet(_line: str) -> None:
    pass


def test_an_entry_is_made_once(tmp_path: Path) -> None:
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "file").write_text("content")

    store = Store(tmp_path)
    assert (store.entry("base-1", make) / "file").read_text() == "content"
    assert store.entry("base-1", make) == tmp_path / "base-1"
    assert len(made) == 1


def test_an_interrupted_entry_is_not_there(tmp_path: Path) -> None:
    def interrupted(folder: Path) -> None:
        (folder / "half").write_text("")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Store(tmp_path).entry("base-1", interrupted)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_build_left_is_removed_by_the_next(tmp_path: Path) -> None:
    (tmp_path / ".work-left").mkdir()
    with Store(tmp_path).locked(quiet):
        assert not (tmp_path / ".work-left").exists()


def test_older_entries_of_the_same_kind_go(tmp_path: Path) -> None:
    for age, name in enumerate(["image-agent-3", "image-agent-2", "image-agent-1", "image-proxy-1"]):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    Store(tmp_path).keep(tmp_path / "image-agent-3", newest=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image-agent-2", "image-agent-3", "image-proxy-1"]
