"""kopf: login, watch streams and their lifecycle, and nothing else.

Invariants:
- kopf makes no API write of its own: only `on.event` handlers are registered (no finalizers, no annotations), and
  posting, scanning and peering are off.
- A handler does not decide: it hands the object to its store, and the store wakes the loop.
- kopf never tells of an object that was deleted between two watches; the periodic lists do (see `reconciler`).
- Each run of kopf has a thread and an event loop to itself: when it ends, it cancels every task of its loop, whoever
  made it, and it would take the process's signal handlers.
- A run of kopf watches either the whole cluster or namespaces that it is given. Sluice's kinds and what policies depend
  on are everywhere; the gateways' Deployments and Services are watched in Sluice's own namespace only, since a right to
  read every Service of the cluster is not needed for it.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import kopf

from sluice_api.timers import OPERATOR_WATCH_SILENCE
from sluice_operator.shell.kube import SERVICE_ACCOUNT_TOKEN
from sluice_operator.shell.view import Feed

log = logging.getLogger(__name__)


class Watches:
    """Watch streams into `feeds`, which are called only on the loop that called `run`.

    Of the whole cluster, or of one `namespace`.
    """

    def __init__(self, feeds: Iterable[Feed], *, namespace: str = "") -> None:
        self._feeds = tuple(feeds)
        self._namespace = namespace
        self._stop: Callable[[], object] = lambda: None

    async def run(self) -> None:
        """Watch until cancelled. Raises RuntimeError when kopf ends by itself."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        name = f"watches of {self._namespace or 'the cluster'}"
        thread = threading.Thread(target=self._watch, args=(loop, ended), name=name, daemon=True)
        thread.start()
        try:
            await ended.wait()
            raise RuntimeError("the watches have ended; see the log above")
        finally:
            with contextlib.suppress(RuntimeError):  # kopf's loop is closed already
                self._stop()

    def _watch(self, loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
        try:
            asyncio.run(self._follow(loop))
        except Exception:
            log.exception("the watches failed")
        finally:
            with contextlib.suppress(RuntimeError):  # the process is ending and its loop is closed
                loop.call_soon_threadsafe(ended.set)

    async def _follow(self, main_loop: asyncio.AbstractEventLoop) -> None:
        stop = asyncio.Event()
        self._stop = partial(asyncio.get_running_loop().call_soon_threadsafe, stop.set)
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(_login)
        for feed in self._feeds:
            resource = feed.resource
            selector = tuple(filter(None, (resource.group, resource.version, resource.plural)))
            kopf.on.event(*selector, registry=registry, id=f"feed-{resource.plural}")(_feeder(main_loop, feed))
        await kopf.operator(
            registry=registry,
            settings=_settings(),
            clusterwide=not self._namespace,
            namespaces=[self._namespace] if self._namespace else [],
            standalone=True,
            stop_flag=stop,
        )


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False  # Events are ours to post, for transitions only
    settings.peering.standalone = True  # one leader is chosen by a Lease: see `leader`
    settings.scanning.disabled = True  # our kinds are known; scanning would need to list CRDs
    # A stream that is silent for longer than bookmarks can be apart is dead.
    settings.watching.inactivity_timeout = float(OPERATOR_WATCH_SILENCE)
    settings.watching.connect_timeout = 10.0
    # The API server ends watches by itself; a client limit covers a stream whose peer is gone.
    settings.watching.server_timeout = 600  # an integer: the API server reads no other
    settings.watching.client_timeout = 660.0
    settings.networking.request_timeout = 30.0
    # A worker task lives per object and leaves soon after its event, so that a thousand objects cost no memory.
    settings.queueing.idle_timeout = 0.5
    settings.process.ultimate_exiting_timeout = None  # the process ends when its main thread does
    return settings


def _login(settings: kopf.OperatorSettings, **_: Any) -> Any:
    """The pod's service account, or else KUBECONFIG; the same choice as `KubeApi.connect` makes."""
    if SERVICE_ACCOUNT_TOKEN.exists():
        return kopf.login_with_service_account(settings=settings)
    return kopf.login_with_kubeconfig(settings=settings)


def _feeder(loop: asyncio.AbstractEventLoop, feed: Feed) -> Any:
    async def hand_over(event: Any, **_: Any) -> None:
        loop.call_soon_threadsafe(feed.remove if event["type"] == "DELETED" else feed.put, event["object"])

    return hand_over
