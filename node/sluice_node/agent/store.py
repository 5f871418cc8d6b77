"""What the agent knows of one kind of object: projections by key.

Invariants:
- Replacing the content (after a list) forgets what is no longer there: a delete that no watch told is not missed.
- A document that cannot be read changes nothing: an object already known stays as it was, a new one is not there.
  It is logged once, by name.
- `changed` is called only when a projection differs.
"""

import logging
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from sluice_node.core.objects import Key, key_of
from sluice_node.core.objects_fields import MalformedError

log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Store(Generic[_T]):
    """Projections of one kind; `read` makes one of a document, `changed` is told why something is different, `gone`
    the last projection of an object that is no longer there."""

    def __init__(
        self,
        kind: str,
        read: Callable[[dict[str, Any]], _T],
        changed: Callable[[str], None],
        gone: Callable[[_T], None] = lambda item: None,
    ) -> None:
        self.kind = kind
        self.synced = False
        self._read = read
        self._changed = changed
        self._gone = gone
        self._items: dict[Key, _T] = {}
        self._complaints: dict[Key, str] = {}

    def values(self) -> tuple[_T, ...]:
        """Every projection, by key."""
        return tuple(self._items[key] for key in sorted(self._items))

    def get(self, key: Key) -> _T | None:
        """One projection."""
        return self._items.get(key)

    def load(self, documents: Iterable[dict[str, Any]]) -> dict[Key, _T]:
        """Read a page of a list, for `replace`: only projections are kept, not documents."""
        loaded: dict[Key, _T] = {}
        for document in documents:
            key, item = self._project(document)
            known = item if item is not None else self._items.get(key) if key else None
            if key is not None and known is not None:
                loaded[key] = known
        return loaded

    def replace(self, items: dict[Key, _T]) -> None:
        """Take a complete list in place of all that is known."""
        first, self.synced = not self.synced, True
        before, self._items = self._items, items
        self._complaints = {key: why for key, why in self._complaints.items() if key in items}
        if first:
            self._changed(f"{self.kind}: {len(items)} found")
        elif before != items:
            differing = [key for key in before.keys() | items.keys() if before.get(key) != items.get(key)]
            for key in before.keys() - items.keys():
                self._gone(before[key])
            self._changed(f"{self.kind}: {len(differing)} differ after a new list")

    def put(self, document: dict[str, Any]) -> None:
        """An object was added or modified."""
        key, item = self._project(document)
        if key is None or item is None or self._items.get(key) == item:
            return
        verb = "changed" if key in self._items else "appeared"
        self._items[key] = item
        self._changed(f"{self.kind} {key} {verb}")

    def delete(self, document: dict[str, Any]) -> None:
        """An object was deleted. Raises MalformedError when it does not say which."""
        key = key_of(document)
        self._complaints.pop(key, None)
        item = self._items.pop(key, None)
        if item is not None:
            self._gone(item)
            self._changed(f"{self.kind} {key} is gone")

    def _project(self, document: dict[str, Any]) -> tuple[Key | None, _T | None]:
        key = None
        try:
            key = key_of(document)
            item = self._read(document)
        except MalformedError as error:
            if key is None:
                log.warning("%s without a name is ignored: %s", self.kind, error)
            elif self._complaints.get(key) != str(error):
                self._complaints[key] = str(error)
                log.warning("%s %s is malformed and changes nothing: %s", self.kind, key, error)
            return key, None
        self._complaints.pop(key, None)
        return key, item
