"""Writes this node's EgressNode, and says of which egress IPs this node is the holder.

Rules:
- A write only when something differs, changes of a moment together, and at most one a second: but what others wait for
  is not kept waiting, the node's gateway role and that it has looked at new pools.
- A write that failed is tried again, ever more rarely, always with what is true by then.
- The EgressNode is made (again) whenever the API server does not have it.
- The holder is said once when this node becomes it: two nodes that disagree for a moment must not write in turns. What
  is still said wrongly after HOLDER_REPEAT is said again.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from sluice_api.timers import AGENT_RETRY_FIRST, AGENT_RETRY_WRITE, HOLDER_REPEAT, REPORT_BETWEEN, REPORT_TOGETHER
from sluice_node.agent import kube_requests as requests
from sluice_node.agent.backoff import Backoff
from sluice_node.agent.kube_client import KubeClient, KubeError, UnreachableError
from sluice_node.core.desired import Address
from sluice_node.core.liveness import Sight
from sluice_node.core.objects import EgressIP, Node
from sluice_node.core.report import Account, Verdict, bare_status, calm, condition, node_status, stamped

log = logging.getLogger(__name__)

_URGENT: Final = ("gatewayFor", "surveyed")


def compose(
    node: Node,
    *,
    account: Account | None,
    survey: Mapping[str, Any],
    verdict: Verdict,
    sights: Mapping[str, Sight],
    generation: int,
    last: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The status to write now; `last` is the one written before, `generation` that of the EgressNode, `survey` what
    `occupied.survey` says."""
    before = next(iter(last["conditions"])) if last is not None else None
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    said = condition(verdict, last=before, now=now)
    if account is None:
        status = bare_status(node, revision=last["revision"] if last is not None else 0, condition=said)
    else:
        status = calm({**node_status(account, sights, said), **survey}, written=last)
    return stamped(status, generation=generation)


class Reporter:
    """`status` gives the status to write, given the one written last, or None while there is nothing to say; `node` is
    this node's Node as it was read last."""

    def __init__(
        self,
        client: KubeClient,
        *,
        status: Callable[[Mapping[str, Any] | None], dict[str, Any] | None],
        node: Callable[[], Node | None],
    ) -> None:
        self._client = client
        self._status = status
        self._node = node
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()
        self._written: dict[str, Any] | None = None
        self._owner: str | None = None
        self._backoff = Backoff(first=AGENT_RETRY_FIRST, most=AGENT_RETRY_WRITE)
        self._complaint: str | None = None

    def changed(self) -> None:
        """What is to be said may differ."""
        status, written = self._status(self._written), self._written or {}
        if status is not None and any(status.get(field) != written.get(field) for field in _URGENT):
            self._hurry.set()
        self._wake.set()

    def lost(self) -> None:
        """The API server has no EgressNode of this node any more."""
        self._owner = self._written = None
        self._wake.set()

    async def run(self) -> None:
        """Never returns; cancel it."""
        while True:
            await self._wake.wait()
            await self._pause(REPORT_TOGETHER)
            self._wake.clear()
            self._hurry.clear()
            try:
                wrote = await self._write()
            except KubeError as error:
                if self._complaint != str(error):
                    self._complaint = str(error)
                    log.warning("cannot write the EgressNode: %s; this is tried again", error)
                self._wake.set()
                await asyncio.sleep(self._backoff.seconds())
                continue
            self._complaint = None
            self._backoff.reset()
            if wrote:
                await self._pause(REPORT_BETWEEN - REPORT_TOGETHER)

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._hurry.wait(), seconds)
        except TimeoutError:
            return

    async def _write(self) -> bool:
        node = self._node()
        status = self._status(self._written)
        if node is None or status is None:
            return False
        if self._owner != node.uid:
            await self._client.send(requests.apply_egress_node(node.name, node_uid=node.uid))
            self._owner, self._written = node.uid, None
        if status == self._written:
            return False
        await self._client.send(requests.apply_egress_node_status(node.name, status))
        self._log_change(status)
        self._written = status
        return True

    def _log_change(self, status: Mapping[str, Any]) -> None:
        before = self._written or {}
        for name in ("gatewayFor", "revision"):
            if status.get(name) != before.get(name):
                log.info("reported %s %s (before: %s)", name, status.get(name), before.get(name))


class HolderWriter:
    """Writes EgressIP.status.holder for the egress IPs that this node has come to hold."""

    def __init__(self, client: KubeClient, *, node: str, claims: Callable[[], Iterable[EgressIP]]) -> None:
        self._client = client
        self._node = node
        self._claims = claims
        self._held: frozenset[Address] = frozenset()
        self._unsaid: set[Address] = set()
        self._wake = asyncio.Event()
        self._backoff = Backoff(first=AGENT_RETRY_FIRST, most=AGENT_RETRY_WRITE)

    def hold(self, addresses: Iterable[Address]) -> None:
        """This node holds these egress IPs now."""
        held = frozenset(addresses)
        self._unsaid = (self._unsaid & held) | (held - self._held)
        self._held = held
        if self._unsaid:
            self._wake.set()

    async def run(self) -> None:
        """Never returns; cancel it."""
        while True:
            try:
                await asyncio.wait_for(self._wake.wait(), HOLDER_REPEAT)
            except TimeoutError:
                self._unsaid = set(self._held)
            self._wake.clear()
            try:
                await self._say()
                self._backoff.reset()
            except KubeError as error:
                log.warning("cannot write the holder of an egress IP: %s; this is tried again", error)
                self._wake.set()
                await asyncio.sleep(self._backoff.seconds())

    async def _say(self) -> None:
        """Say of each egress IP what is to be said. Raises the last KubeError, once all were tried."""
        failed: KubeError | None = None
        for claim in list(self._claims()):
            if claim.address in self._unsaid and claim.address in self._held:
                try:
                    if claim.holder != self._node:
                        await self._client.send(requests.apply_holder(claim.key.name, holder=self._node))
                        log.info("this node is the holder of %s (before: %s)", claim.address, claim.holder)
                except UnreachableError:
                    raise  # none of the others would get through
                except KubeError as error:
                    failed = error
                else:
                    self._unsaid.discard(claim.address)
        if failed is not None:
            raise failed
