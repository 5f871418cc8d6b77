"""Keeps a store equal to what the API server has: list, then watch from there, for ever.

Rules:
- A watch that ends or breaks is taken up where it stopped; only when the server no longer knows that point (410), or
  when what it says makes no sense, everything is listed anew.
- An outage changes nothing in the store, and ends without a rush: waits double and are drawn at random.
- An optional kind that the server does not have, or does not show us, is empty, and is asked for again every few
  minutes. Any other that cannot be listed stays unknown: nothing is decided without it.
"""

import asyncio
import logging
import random
from contextlib import aclosing
from typing import Any, Final, Generic, TypeVar

from sluice_api.timers import AGENT_RETRY_FIRST, AGENT_RETRY_WATCH, WATCH_SILENCE
from sluice_node.agent import kube_requests as requests
from sluice_node.agent.backoff import Backoff
from sluice_node.agent.kube_client import GarbledError, KubeClient, KubeError, RefusedError, UnreachableError
from sluice_node.agent.kube_requests import Resource
from sluice_node.agent.store import Store
from sluice_node.core.objects import Key
from sluice_node.core.objects_fields import MalformedError

log = logging.getLogger(__name__)
_T = TypeVar("_T")

LIFETIME: Final = (300, 600)
"""Seconds after which the server ends a watch, drawn so that watches of many agents do not end together."""
_ABSENT_KIND: Final = 300.0
_GONE: Final = frozenset({410})
_WITHHELD: Final = frozenset({403, 404})
_JUST_FAILED: Final = 1.0


class Reflector(Generic[_T]):
    """Feeds one store. `restarts` counts watches that did not end by themselves."""

    def __init__(self, client: KubeClient, resource: Resource, store: Store[_T]) -> None:
        self.store = store
        self.restarts = 0
        self._client = client
        self._resource = resource
        self._backoff = Backoff(first=AGENT_RETRY_FIRST, most=AGENT_RETRY_WATCH)
        self._version: str | None = None
        self._trouble = False

    async def run(self) -> None:
        """Never returns; cancel it."""
        while True:
            try:
                if self._version is None:
                    self._version = await self._list()
                await self._watch(self._version)
                self._backoff.reset()
                continue
            except RefusedError as error:
                if self._resource.optional and error.status in _WITHHELD and self._version is None:
                    await self._without_kind(error)
                    continue
                if error.status in _GONE:
                    self._version = None
                self._complain(error)
            except UnreachableError as error:
                self._complain(error)
            except (GarbledError, MalformedError) as error:
                self._version = None
                self._complain(error)
            self.restarts += 1
            await asyncio.sleep(self._backoff.seconds())

    async def _list(self) -> str:
        found: dict[Key, _T] = {}
        proceed = ""
        while True:
            page = await self._client.send(requests.list_page(self._resource, proceed=proceed))
            metadata, entries = page.get("metadata"), page.get("items")
            if not isinstance(metadata, dict) or not isinstance(entries, list | None):
                raise GarbledError(f"the list of {self._resource.plural} is no list")
            found.update(self.store.load(entry for entry in entries or () if isinstance(entry, dict)))
            proceed = metadata.get("continue") or ""
            if not proceed:
                break
        version = metadata.get("resourceVersion")
        if not isinstance(version, str) or not version:
            raise GarbledError(f"the list of {self._resource.plural} has no resourceVersion")
        self.store.replace(found)
        self._recovered()
        return version

    async def _watch(self, version: str) -> None:
        request = requests.watch(
            self._resource,
            version=version,
            lifetime=random.randint(*LIFETIME),  # noqa: S311 - spreads load, keeps no secret
            inactivity=WATCH_SILENCE,
        )
        started = asyncio.get_running_loop().time()
        async with aclosing(self._client.lines(request)) as events:
            async for event in events:
                self._version = self._take(event)
                self._recovered()
                self._backoff.reset()
        if asyncio.get_running_loop().time() - started < _JUST_FAILED:
            raise UnreachableError("the watch ended at once")

    def _take(self, event: dict[str, Any]) -> str:
        """Put one event into the store; gives the version to go on from. Raises RefusedError, GarbledError."""
        kind, document = event.get("type"), event.get("object")
        if not isinstance(document, dict):
            raise GarbledError(f"a watch event {kind!r} without an object")
        if kind == "ERROR":
            code = document.get("code")
            raise RefusedError(code if isinstance(code, int) else 0, str(document.get("message", "")))
        metadata = document.get("metadata")
        version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
        if not isinstance(version, str) or not version:
            raise GarbledError(f"a watch event {kind!r} without a resourceVersion")
        match kind:
            case "ADDED" | "MODIFIED":
                self.store.put(document)
            case "DELETED":
                self.store.delete(document)
            case "BOOKMARK":
                pass
            case _:
                raise GarbledError(f"a watch event of the unknown type {kind!r}")
        return version

    async def _without_kind(self, error: RefusedError) -> None:
        if not self.store.synced:
            log.warning("going on without %s: %s", self._resource.plural, error)
        self.store.replace({})
        await asyncio.sleep(_ABSENT_KIND)

    def _complain(self, error: KubeError | MalformedError) -> None:
        """Once an outage, whatever else it turns into."""
        if self._trouble:
            log.debug("watching %s: %s", self._resource.plural, error)
            return
        self._trouble = True
        follows = "a new list follows" if self._version is None else "it goes on where it stopped"
        log.warning("watching %s: %s; what is known stays in force, %s", self._resource.plural, error, follows)

    def _recovered(self) -> None:
        if self._trouble:
            self._trouble = False
            log.info("watching %s again", self._resource.plural)
