"""Kernel settings below /proc/sys/net, and what they were before Sluice.

Invariants: a setting that was changed is written down before it is changed, in a file that outlives the process, and
is given back once it is no longer wanted. Settings of devices that are gone are forgotten. One that cannot be written
stops no other.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Held:
    """Whether anything was changed, and of each path that could not be written why."""

    changed: bool
    refused: Mapping[str, str]


class Settings:
    """`root` is /proc/sys/net or where the host's is mounted; `memory` is the file of previous values."""

    def __init__(self, root: Path, memory: Path) -> None:
        self._root = root
        self._memory = memory

    def held(self, paths: Iterable[str]) -> frozenset[tuple[str, str]]:
        """The current value of each path that there is."""
        values = ((path, self._read(path)) for path in paths)
        return frozenset((path, value) for path, value in values if value is not None)

    def hold(self, wanted: Mapping[str, str]) -> Held:
        """Set what differs, give back what is no longer wanted."""
        before = self._remembered()
        kept = dict(before)
        refused: dict[str, str] = {}
        changed = {path: now for path, value in wanted.items() if (now := self._read(path)) not in (None, value)}
        for path, now in changed.items():
            kept.setdefault(path, str(now))
        if kept != before:
            self._remember(kept)
        for path in changed:
            self._write(path, wanted[path], refused)
        given_back = [path for path in kept if path not in wanted]
        for path in given_back:
            if self._read(path) is not None:
                self._write(path, kept[path], refused)
            if path not in refused:
                del kept[path]
        if given_back:
            self._remember(kept)
        return Held((changed.keys() | set(given_back)) - refused.keys() != set(), refused)

    def _read(self, path: str) -> str | None:
        try:
            return (self._root / path).read_text().strip()
        except FileNotFoundError:
            return None

    def _write(self, path: str, value: str, refused: dict[str, str]) -> None:
        try:
            (self._root / path).write_text(value)
        except OSError as error:
            refused[path] = f"cannot set {self._root / path} to {value}: {error.strerror}"

    def _remembered(self) -> dict[str, str]:
        try:
            return dict(json.loads(self._memory.read_text()))
        except (FileNotFoundError, ValueError):
            return {}

    def _remember(self, values: Mapping[str, str]) -> None:
        if not values:
            self._memory.unlink(missing_ok=True)
            return
        self._memory.parent.mkdir(parents=True, exist_ok=True)
        draft = self._memory.with_suffix(".new")
        draft.write_text(json.dumps(values))
        draft.replace(self._memory)
