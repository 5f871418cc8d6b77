"""What was last seen of each kind of object, as projections.

Invariants:
- Versions only go forward: an event, a list or the answer to a write that is older than what is known changes nothing,
  in whatever order they arrive. A deletion is remembered until a list is newer than it.
- `replace` deletes what a complete list no longer holds: that is how a deletion missed between two watches ends.
- A store that has not taken a complete list is not synced, and nothing may be decided from it.
- Changes that a projection does not see (a heartbeat, a round-trip time) wake nobody.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sluice_operator.core.project import version_of

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")
Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Entry(Generic[Value]):
    version: int
    value: Value


class Store(Generic[Key, Value]):
    """Projections of one kind. `wake` is called with a description of whatever changed in a way that matters."""

    def __init__(
        self,
        kind: str,
        *,
        project: Callable[[Document], Value | None],
        key_of: Callable[[Document], Key],
        wake: Callable[[str], None],
    ) -> None:
        self.kind = kind
        self.synced = False
        self._project = project
        self._key_of = key_of
        self._wake = wake
        self._entries: dict[Key, _Entry[Value]] = {}
        self._deleted: dict[Key, int] = {}

    def snapshot(self) -> dict[Key, Value]:
        """A copy of everything known."""
        return {key: entry.value for key, entry in self._entries.items()}

    def get(self, key: Key) -> Value | None:
        """The object of this name, if one is known."""
        entry = self._entries.get(key)
        return None if entry is None else entry.value

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, document: Document) -> None:
        """Take in an object as an event, a read or the answer to a write shows it."""
        key, version = self._key_of(document), version_of(document)
        if version <= self._deleted.get(key, -1):
            return
        known = self._entries.get(key)
        if known is not None and version <= known.version:
            return
        value = self._project(document)
        if value is None:
            return
        self._deleted.pop(key, None)
        self._entries[key] = _Entry(version, value)
        if known is None or known.value != value:
            self._wake(f"{self.kind} {_text(key)}")

    def remove(self, document: Document) -> None:
        """Take in a deletion; the document's version is that of the deletion."""
        self._forget(self._key_of(document), version_of(document))

    def gone(self, key: Key) -> None:
        """Take in that the API server does not know the object (404): what was known of it is outdated."""
        known = self._entries.get(key)
        if known is not None:
            self._forget(key, known.version)

    def replace(self, documents: Iterable[Document], *, version: int) -> None:
        """Take in a complete list made at `version`."""
        listed: set[Key] = set()
        for document in documents:
            listed.add(self._key_of(document))
            self.put(document)
        for key in [key for key, entry in self._entries.items() if key not in listed and entry.version <= version]:
            self._forget(key, version)
        self._deleted = {key: deleted for key, deleted in self._deleted.items() if deleted > version}
        if not self.synced:
            self.synced = True
            self._wake(f"{self.kind} synced")

    def _forget(self, key: Key, version: int) -> None:
        known = self._entries.get(key)
        if known is not None and known.version > version:
            return
        self._deleted[key] = max(version, self._deleted.get(key, 0))
        if known is not None:
            del self._entries[key]
            self._wake(f"{self.kind} {_text(key)} deleted")


def _text(key: Hashable) -> str:
    return "/".join(map(str, key)) if isinstance(key, tuple) else str(key)
