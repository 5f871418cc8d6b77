"""The agent's parts, put together, and how long each of them lives.

Invariants: ending the agent, in whatever way, changes nothing in the kernel.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sluice_api.timers import HEARTBEAT_PROOF, LINKS_READ, LINKS_READ_TROUBLED
from sluice_node.agent.asker import Asker, Link
from sluice_node.agent.changes import Changes
from sluice_node.agent.controller import Controller
from sluice_node.agent.heartbeat import Heartbeat
from sluice_node.agent.http_server import HttpServer, Page
from sluice_node.agent.kernel_worker import KernelPort, KernelWorker
from sluice_node.agent.kube_client import KubeClient
from sluice_node.agent.metrics import Figures, Metrics
from sluice_node.agent.preflight import Preflight
from sluice_node.agent.prober import Prober, ProbeSocket
from sluice_node.agent.proxy_socket import ProxySocket
from sluice_node.agent.reach import Reach, asking
from sluice_node.agent.reporter import HolderWriter, Reporter, compose
from sluice_node.agent.state import ClusterState
from sluice_node.agent.surveyor import Surveyor
from sluice_node.core import objects
from sluice_node.core.desired import Address, Network
from sluice_node.core.flows import flow_line
from sluice_node.core.links import Links
from sluice_node.core.occupied import Neighbour
from sluice_node.core.preflight import Facts
from sluice_node.core.resolve import tunnel_mac
from sluice_node.core.resolve_proxy import proxy_line
from sluice_node.kernel.errors import KernelError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line and the environment say. `metrics_host` None is every address."""

    node: str
    namespace: str
    never_redirected: frozenset[Network]
    socket: Path
    metrics_host: str | None
    metrics_port: int


class Agent:
    """`kernel`, `open_probes` (of the node's own tunnel MAC), `links`, `neighbours`, `announce` and `look` are the ways
    to the node itself."""

    def __init__(
        self,
        settings: Settings,
        *,
        client: KubeClient,
        kernel: KernelPort,
        open_probes: Callable[[str], ProbeSocket],
        links: Callable[[], Links],
        announce: Callable[[Mapping[Address, str]], None],
        open_link: Callable[[str], Link],
        neighbours: Callable[[], tuple[Neighbour, ...]] = tuple,
        look: Callable[[], Facts] = Facts,
    ) -> None:
        self._client = client
        self._kernel = KernelWorker(kernel, links=links, announce=announce, neighbours=neighbours, look=look)
        self._metrics = Metrics()
        mac = tunnel_mac(settings.node)
        changes = Changes()
        self.prober = Prober(lambda: open_probes(mac), changes.note_gateways)
        self.state = ClusterState(
            node=settings.node,
            namespace=settings.namespace,
            never_redirected=settings.never_redirected,
            changed=changes.note,
            gone=self._gone,
            api_server=lambda: client.servers,
        )
        self._reach = Reach(asking(client), claims=self.state.egress_ips.values, changed=changes.note)
        self._preflight = Preflight(self._kernel.look, changes.note)
        self.controller = Controller(
            changes,
            state=self.state,
            prober=self.prober,
            kernel=self._kernel,
            metrics=self._metrics,
            reach=self._reach,
            preflight=self._preflight,
            settled=self._settled,
        )
        self._reflectors = self.state.reflectors(client)
        self._reporter = Reporter(client, status=self._status, node=lambda: self.state.registered)
        self._surveyor = Surveyor(self._kernel.neighbours, changed=self._reporter.changed)
        self._asker = Asker(open_link=open_link, neighbours=neighbours, changed=self._reporter.changed)
        self._holders = HolderWriter(client, node=settings.node, claims=self.state.egress_ips.values)
        self._heartbeat = Heartbeat(
            client,
            namespace=settings.namespace,
            # A node that was cleaned has no agent that anybody should count on, and an uninstall deletes its Lease.
            node=lambda: None if self.controller.removed else self.state.registered,
            turning=self._turning,
        )
        self._proxies = ProxySocket(settings.socket, self._proxy_line, self._flow_line)
        pages = {"/healthz": self._healthz, "/readyz": self._readyz, "/metrics": self._metrics_page}
        self._http = HttpServer(settings.metrics_host, settings.metrics_port, pages)

    async def run(self) -> None:
        """Run until cancelled. Raises an ExceptionGroup when a part cannot go on."""
        parts: list[Coroutine[Any, Any, None]] = [
            self._http.run(),
            self._proxies.run(),
            self.controller.run(),
            self.controller.watch_kernel(),
            self.prober.run(),
            self._read_links(),
            self._surveyor.run(),
            self._reach.run(),
            self._asker.run(),
            self._reporter.run(),
            self._holders.run(),
            self._heartbeat.run(),
            self._preflight.run(),
            *(reflector.run() for reflector in self._reflectors),
        ]
        try:
            async with asyncio.TaskGroup() as group:
                for part in parts:
                    group.create_task(part)
        finally:
            self._kernel.close()

    def _settled(self) -> None:
        programmed = self.controller.programmed
        self._asker.remember(self.state.heard_before())
        if programmed is not None:
            self._asker.look(programmed.snapshot, programmed.desired)
        else:
            self._asker.rest()
        self._holders.hold(programmed.held if programmed is not None else ())
        self._proxies.publish()
        self._reporter.changed()

    def _gone(self, key: objects.Key) -> None:
        if key.name == self.state.node_name and not self.controller.removed:
            log.warning("the EgressNode of this node is gone: it is made anew once there is a Node to own it")
            self._reporter.lost()

    def _status(self, last: Mapping[str, Any] | None) -> dict[str, Any] | None:
        controller, node, own = self.controller, self.state.node, self.state.own()
        if node is None or controller.verdict is None or (controller.removed and own is None):
            return None
        account = controller.account
        return compose(
            node,
            account=account,
            survey=self._surveyor.status(account.snapshot, self._asker.heard()) if account is not None else {},
            verdict=controller.verdict,
            sights=self.prober.sights(),
            generation=own.generation if own is not None else 1,  # the API server's for an object that is made anew
            last=last,
        )

    def _proxy_line(self, pool: str) -> bytes | None:
        programmed = self.controller.programmed
        return None if programmed is None else proxy_line(pool, programmed.snapshot)

    async def _flow_line(self, source: Address) -> bytes:
        try:
            return flow_line(await self._kernel.opened_by(source))
        except KernelError as error:
            log.warning("%s", error)
            return b""

    async def _read_links(self) -> None:
        while True:
            try:
                self.state.set_links(await self._kernel.links())
            except KernelError as error:
                log.warning("%s; this is tried again", error)
            for _ in range(round(LINKS_READ / LINKS_READ_TROUBLED)):
                await asyncio.sleep(LINKS_READ_TROUBLED)
                if self.controller.account is not None and self.controller.account.troubles:
                    break  # an interface that is missed may be there by now

    async def _turning(self) -> bool:
        """Whether the agent does its work: it has made an attempt, no pass hangs, and the kernel thread takes calls."""
        return (
            self.controller.verdict is not None
            and not self.controller.stuck(for_seconds=HEARTBEAT_PROOF)
            and await self._kernel.turns(within=HEARTBEAT_PROOF)
        )

    async def _healthz(self) -> Page:
        return Page(200, b"ok\n")

    async def _readyz(self) -> Page:
        if self.controller.verdict is None:
            return Page(503, f"waiting for {', '.join(self.state.missing()) or 'the first attempt'}\n".encode())
        if self.controller.removed or self.controller.verdict.ready:
            return Page(200, b"ok\n")
        return Page(503, f"{self.controller.verdict.message}\n".encode())

    async def _metrics_page(self) -> Page:
        programmed, account = self.controller.programmed, self.controller.account
        desired = programmed.desired if programmed is not None else None
        try:
            dropped = await self._kernel.counters()
        except KernelError as error:
            log.debug("no counters: %s", error)
            dropped = {}
        figures = Figures(
            selected_pods=sum(account.selection.pods.values()) if account is not None else 0,
            policies=len(desired.policies) if desired is not None else 0,
            live={pool: len(nodes) for pool, nodes in desired.live_gateways.items()} if desired is not None else {},
            held=len(programmed.held) if programmed is not None else 0,
            revision=account.revision if account is not None else 0,
            rtts={node: sight.rtt for node, sight in self.prober.sights().items()},
            watch_restarts=sum(reflector.restarts for reflector in self._reflectors),
            dropped=dropped,
        )
        return Page(200, self._metrics.render(figures), "text/plain; version=0.0.4; charset=utf-8")
