"""Says that this agent lives, and means it: renews a Lease while its parts turn.

Rules:
- No renewal unless `turning` says, just before, that the agent does its work: one that hangs must look like a dead one.
- The Lease is made when it is not there, and belongs to the Node as the EgressNode does: while there is no Node there
  is no Lease.
- Nobody compares the time in it with a clock: it only has to differ each time.
- Agents that lost the same API server must not come back in step: each wait is drawn at random from its upper part.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final

from sluice_api.timers import AGENT_RETRY_FIRST, HEARTBEAT
from sluice_node.agent import kube_requests as requests
from sluice_node.agent.backoff import Backoff
from sluice_node.agent.kube_client import KubeClient, KubeError, RefusedError
from sluice_node.core.objects import Node

log = logging.getLogger(__name__)

_LOOK: Final = 1.0
"""Seconds until an agent that did not turn is asked again."""


class Heartbeat:
    """`node` is this node's Node as it is now, None while there is none; `turning` says whether the agent works."""

    def __init__(
        self,
        client: KubeClient,
        *,
        namespace: str,
        node: Callable[[], Node | None],
        turning: Callable[[], Awaitable[bool]],
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._node = node
        self._turning = turning
        self._owner: str | None = None
        self._backoff = Backoff(first=AGENT_RETRY_FIRST, most=HEARTBEAT / 2)
        self._complaint = ""

    async def run(self) -> None:
        """Never returns; cancel it."""
        while True:
            node = self._node()
            if node is None or not await self._turning():
                await asyncio.sleep(_LOOK)
                continue
            try:
                await self._renew(node)
            except KubeError as error:
                if not self._complaint:
                    log.warning("cannot renew the heartbeat: %s; this is tried again", error)
                self._complaint = str(error)
                await asyncio.sleep(self._backoff.seconds())
                continue
            self._complaint = ""
            self._backoff.reset()
            await asyncio.sleep(HEARTBEAT * random.uniform(0.8, 1.0))  # noqa: S311 - spreads load, keeps no secret

    async def _renew(self, node: Node) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        if self._owner == node.uid:
            try:
                await self._client.send(requests.renew_heartbeat(node.name, namespace=self._namespace, now=now))
                return
            except RefusedError as error:
                if error.status != HTTPStatus.NOT_FOUND:
                    raise
        made = requests.apply_heartbeat(node.name, node_uid=node.uid, namespace=self._namespace, now=now)
        await self._client.send(made)
        self._owner = node.uid
