"""Puts the parts together: API client, leader, reconciler, watches, metrics; and takes them apart in order.

Invariant: when any part ends, all end, and the lease is given up last, after nothing here writes any more.
"""

import asyncio
import logging
import signal
import time

from sluice_operator.core.snapshot import Settings
from sluice_operator.shell.heartbeats import Heartbeats
from sluice_operator.shell.kube import KubeApi
from sluice_operator.shell.leader import Leader
from sluice_operator.shell.metrics import Metrics, serve
from sluice_operator.shell.reconciler import Reconciler
from sluice_operator.shell.watches import Watches

log = logging.getLogger(__name__)


async def operate(settings: Settings, *, identity: str, metrics_host: str | None, metrics_port: int) -> None:
    """Run until SIGTERM or SIGINT; raises what made a part of it end."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    api = await KubeApi.connect()
    metrics = Metrics()
    leader = Leader(api, namespace=settings.namespace, identity=identity, clock=time.monotonic)
    metrics.leader.set_function(leader.is_leader)
    reconciler = Reconciler(api, leader, settings=settings, metrics=metrics, reporter=identity)
    runner = await serve(metrics, host=metrics_host, port=metrics_port, ready=lambda: reconciler.view.synced)
    log.info("started as %s in namespace %s", identity, settings.namespace)
    heartbeats = Heartbeats(
        api, reconciler.view, namespace=settings.namespace, wake=reconciler.wakeups.wake, clock=time.monotonic
    )
    work = asyncio.create_task(_work(reconciler, leader, heartbeats, namespace=settings.namespace))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            await work
    finally:
        stopping.cancel()
        work.cancel()
        await asyncio.gather(work, stopping, return_exceptions=True)
        await leader.release()
        await runner.cleanup()
        await api.close()
        log.info("stopped")


async def _work(reconciler: Reconciler, leader: Leader, heartbeats: Heartbeats, *, namespace: str) -> None:
    await reconciler.sync()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(leader.run())
        tasks.create_task(reconciler.follow_leadership())
        tasks.create_task(reconciler.list_periodically())
        tasks.create_task(heartbeats.run())
        tasks.create_task(reconciler.run())
        tasks.create_task(Watches(reconciler.view.feeds).run())
        tasks.create_task(Watches(reconciler.view.gateway_feeds, namespace=namespace).run())
