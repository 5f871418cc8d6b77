"""Listens for the agents' signs of life: reads their Leases every few seconds, and wakes the loop when one falls silent
or is heard again.

Invariants:
- The Leases are read, not watched: with a thousand nodes a watch would bring a hundred renewals a second, each of which
  means nothing by itself.
- A renewal wakes nobody; only a transition does.
- What cannot be read changes nothing, and is no silence (see `core.agents`).
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from sluice_api.names import AGENT_APP, LABEL_APP
from sluice_api.timers import SILENCE_LOOK
from sluice_operator.core import agents
from sluice_operator.core.agents import AgentSet, Presence, Voice
from sluice_operator.core.project_agents import agent_set, renewals
from sluice_operator.core.words import names
from sluice_operator.shell.kube import DAEMON_SET, LEASE, Api, ApiError, NotFound
from sluice_operator.shell.view import View

log = logging.getLogger(__name__)

_LABELS: Final = f"{LABEL_APP}={AGENT_APP}"


class Heartbeats:
    """Keeps `view.presences`. `clock` counts seconds and never goes back; `wake` is told why."""

    def __init__(
        self, api: Api, view: View, *, namespace: str, wake: Callable[[str], None], clock: Callable[[], float]
    ) -> None:
        self._api = api
        self._view = view
        self._namespace = namespace
        self._wake = wake
        self._clock = clock
        self._looked: float | None = None

    async def run(self) -> None:
        """Look until cancelled."""
        complaint = ""
        while True:
            try:
                await self.look()
                complaint = ""
            except ApiError as error:
                if not complaint:
                    log.warning("cannot listen for the agents' signs of life: %s; this is tried again", error)
                complaint = str(error)
            await asyncio.sleep(SILENCE_LOOK)

    async def look(self) -> None:
        """Look once. Raises ApiError."""
        daemons = await self._agent_set()
        leases, _ = await self._api.list(LEASE, namespace=self._namespace, labels=_LABELS)
        now = self._clock()
        elapsed = 0.0 if self._looked is None else now - self._looked
        self._looked = now
        wanted = agents.expected(daemons, self._view.cluster_nodes.snapshot(), self._view.nodes.snapshot())
        before = self._view.presences
        self._view.presences = agents.listen(before, wanted, renewals(leases), elapsed=elapsed)
        self._tell(before)

    async def _agent_set(self) -> AgentSet | None:
        try:
            return agent_set(await self._api.get(DAEMON_SET, AGENT_APP, namespace=self._namespace))
        except NotFound:
            return None

    def _tell(self, before: Any) -> None:
        changed = {
            node: presence.voice
            for node, presence in self._view.presences.items()
            if presence.voice is not before.get(node, Presence(None)).voice
        }
        silent = sorted(node for node, voice in changed.items() if voice is Voice.SILENT)
        back = sorted(node for node in changed if node not in silent and before[node].voice is Voice.SILENT)
        if silent:
            log.warning("no sign of life from the agent of %s", names(silent))
        if back:
            log.info("the agent of %s is heard again", names(back))
        if changed or before.keys() - self._view.presences.keys():
            self._wake("agents' signs of life")
