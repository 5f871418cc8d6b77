"""Looks whether the API server still answers after new egress IPs came into use, and has them taken back if not.

Invariants: what was heard anyway counts, so that it is asked only when it is silent; a look never takes longer than
TRIAL_CHECK. What follows from it is decided in `core.trial`.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import suppress

from sluice_api.timers import TRIAL_CHECK
from sluice_node.agent import kube_requests as requests
from sluice_node.agent.kube_client import ClosedError, GarbledError, KubeClient, RefusedError, UnreachableError
from sluice_node.core.desired import Address
from sluice_node.core.objects import EgressIP
from sluice_node.core.trial import Claim, Trial

log = logging.getLogger(__name__)

Answers = Callable[[], Awaitable[bool]]
"""Finds out whether the API server answers, or did within the last TRIAL_CHECK."""


def asking(client: KubeClient) -> Answers:
    """Asks the API server itself, if it has said nothing of late.

    It is the way there that is asked about: a connection that is refused, or made and not served, is an answer too. A
    server that is down or overloaded is no claim's doing.
    """

    async def answers() -> bool:
        if time.monotonic() - client.heard <= TRIAL_CHECK:
            return True
        try:
            async with asyncio.timeout(TRIAL_CHECK / 2):
                await client.send(requests.get_version(seconds=TRIAL_CHECK))
        except (RefusedError, GarbledError, ClosedError):
            return True
        except (UnreachableError, TimeoutError):
            return await client.is_there(seconds=TRIAL_CHECK / 2)
        return True

    return answers


class Reach:
    """Runs the trial of new claims. `claims` gives all that there are, `changed` is told when `withheld` differs,
    `clock` gives seconds."""

    def __init__(
        self,
        answers: Answers,
        *,
        claims: Callable[[], Iterable[EgressIP]],
        changed: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._answers = answers
        self._claims = claims
        self._changed = changed
        self._clock = clock
        self._trial = Trial()
        self._wake = asyncio.Event()

    def withheld(self) -> Mapping[Address, str]:
        """Egress IPs that must not be in the kernel -> why."""
        if self._trial.remembers:
            self._trial.remember(self._claims())
        return self._trial.withheld

    async def before(self, added: Collection[Claim]) -> bool:
        """Whether the API server is in reach before an apply that adds these claims; not asked when it adds none."""
        return bool(added) and await self._answers()

    def applied(self, added: Collection[Claim], *, in_reach: bool) -> None:
        """The apply was made; `in_reach` is what `before` gave."""
        if added:
            self._trial.applied(added, now=self._clock(), in_reach=in_reach)
            self._wake.set()

    async def run(self) -> None:
        """Never returns; cancel it."""
        while True:
            self._wake.clear()
            due = self._trial.check()
            now = self._clock()
            if due is None or due > now:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), None if due is None else due - now)
                continue
            before = self._trial.withheld
            if self._trial.checked(now=now, in_reach=await self._answers()):
                self._say(before, self._trial.withheld)

    def _say(self, before: Mapping[Address, str], after: Mapping[Address, str]) -> None:
        for address in sorted(before.keys() - after.keys(), key=str):
            log.warning("egress IP %s is used again: it was not why the API server was out of reach", address)
        self._changed("egress IPs were taken back or let be, as the API server went or came")
