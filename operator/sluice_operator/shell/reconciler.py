"""The loop: something changed -> plan -> apply, until there is nothing left to do.

Invariants:
- Level-triggered: what woke the loop is only logged. The plan is made from the stores, so a lost or doubled event
  costs time, never correctness.
- Wake-ups that arrive while a plan is carried out become one next plan.
- Only the leader plans, and only when every store has synced since it became the leader.
- No error ends the loop; what cannot be written now is tried again, waiting longer each time up to a limit.
- What time alone changes (a rest that ends) wakes the loop when it is due; nothing is polled.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from sluice_api.timers import OPERATOR_COALESCE, OPERATOR_RETRY, OPERATOR_RETRY_FIRST, RELIST
from sluice_operator.core.actions import Plan
from sluice_operator.core.plan import plan
from sluice_operator.core.snapshot import Settings, Snapshot
from sluice_operator.core.wake import next_wake
from sluice_operator.shell import events
from sluice_operator.shell.apply import Applier, LostLease, Outcome
from sluice_operator.shell.clock import Clock
from sluice_operator.shell.kube import Api, ApiError
from sluice_operator.shell.leader import Leader
from sluice_operator.shell.metrics import Metrics
from sluice_operator.shell.surveys import Surveys
from sluice_operator.shell.view import View

log = logging.getLogger(__name__)

ROUNDS: Final = 50
"""Plans in a row without a pause. A start takes three or four; more means that plan and cluster disagree for ever."""


class Wakeups:
    """What changed since the last plan: a set of descriptions, so a thousand changes of one object are one."""

    def __init__(self) -> None:
        self._causes: set[str] = set()
        self._event = asyncio.Event()

    def wake(self, cause: str) -> None:
        """Note a change."""
        self._causes.add(cause)
        self._event.set()

    async def wait(self) -> None:
        """Wait for a change."""
        await self._event.wait()

    def take(self) -> set[str]:
        """The changes noted since the last call."""
        causes, self._causes = self._causes, set()
        self._event.clear()
        return causes


class Reconciler:
    """Owns the view and the loop that acts on it."""

    def __init__(
        self,
        api: Api,
        leader: Leader,
        *,
        settings: Settings,
        metrics: Metrics,
        reporter: str,
        clock: Callable[[], str] | None = None,
    ) -> None:
        """`clock` tells the time in RFC 3339, UTC."""
        self._api = api
        self._clock = clock or Clock()
        self._due: asyncio.TimerHandle | None = None
        self._leader = leader
        self._metrics = metrics
        self._reporter = reporter
        self.wakeups = Wakeups()
        self.view = View(settings, wake=self.wakeups.wake)
        self._applier = Applier(api, self.view, namespace=settings.namespace, may_write=leader.is_leader)
        self._surveys = Surveys(clock=time.monotonic, wake_after=self._wake_after)
        self._led = False
        self._retry: asyncio.TimerHandle | None = None
        self._posting: set[asyncio.Task[None]] = set()

    async def sync(self) -> None:
        """Fill every store, waiting for the API server and for the CRDs as long as it takes."""
        await _until_done(lambda: self.view.list_followed(self._api), what="read the cluster")
        await _until_done(
            lambda: self.view.poll(self._api), what="read the gateway objects and the API server's addresses"
        )

    async def list_periodically(self) -> None:
        """Reconcile the stores with complete lists for ever: what a watch missed ends here."""
        while True:
            await asyncio.sleep(RELIST)
            try:
                await self.view.list_followed(self._api)
                await self.view.poll(self._api)
            except ApiError as error:
                log.warning("cannot list: %s", error)

    async def run(self) -> None:
        """Reconcile until cancelled."""
        delay = float(OPERATOR_RETRY_FIRST)
        while True:
            await self.wakeups.wait()
            await asyncio.sleep(OPERATOR_COALESCE)
            if not self._leader.is_leader():
                self._led = False
                self.wakeups.take()
                continue
            if await self._reconcile_or_log():
                delay = float(OPERATOR_RETRY_FIRST)
                continue
            if self._retry is not None:
                continue
            # A timer rather than a pause: what can be done for others must not wait for what cannot be done now.
            log.info("something is left to do; trying again in %.1f s", delay)
            self._retry = asyncio.get_running_loop().call_later(delay, self._try_again)
            delay = min(2 * delay, OPERATOR_RETRY)

    def _try_again(self) -> None:
        self._retry = None
        self.view.ask_again()
        self.wakeups.wake("retry")

    async def _reconcile_or_log(self) -> bool:
        """Whether everything is done, or is now for another leader to do."""
        try:
            return await self.reconcile()
        except LostLease:
            log.warning("the lease ran out in the middle of a plan; the next leader goes on from here")
            return True
        except ApiError as error:
            log.warning("stopped: %s", error)
        except Exception:
            self._metrics.failures.inc()
            log.exception("a plan failed")
        return False

    async def reconcile(self) -> bool:
        """Plan and apply until a plan is empty. False when something was refused or did not settle; try later.

        Raises ApiError, LostLease.
        """
        if not self._led:
            # What another leader wrote a moment ago may not have reached our watches yet.
            await self.view.list_followed(self._api)
            await self.view.poll(self._api)
            await self._applier.read_ids()
            self._led = True
            log.info("leading; everything was read afresh")
        for _ in range(ROUNDS):
            causes = self.wakeups.take()
            overdue = self._surveys.overdue(self.view.pools.snapshot())
            snapshot = self.view.snapshot(now=self._clock(), overdue=overdue)
            made = self._plan(snapshot)
            if not made.actions:
                self._wake_when_due(snapshot)
                return not self.view.rejections
            log.debug("%d writes to make, because of %s", len(made.actions), sorted(causes)[:5])
            outcome = await self._applier.apply(made)
            self._account(outcome)
            if outcome.stale:
                log.info("planning again: %s", outcome.stale)
            elif outcome.rejected > outcome.told and outcome.rejected == len(made.actions):
                return False
        log.warning("not settled after %d plans", ROUNDS)
        return False

    def _wake_when_due(self, snapshot: Snapshot) -> None:
        """Plan again when time alone will have changed something."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        seconds = next_wake(snapshot)
        if seconds is not None:
            self._due = asyncio.get_running_loop().call_later(seconds, self.wakeups.wake, "the end of a rest")

    def _plan(self, snapshot: Snapshot) -> Plan:
        started = time.perf_counter()
        made = plan(snapshot)
        self._metrics.observe(snapshot, seconds=time.perf_counter() - started)
        return made

    def _wake_after(self, seconds: float, why: str) -> None:
        asyncio.get_running_loop().call_later(seconds, self.wakeups.wake, why)

    def _account(self, outcome: Outcome) -> None:
        self._metrics.writes.inc(outcome.written)
        self._metrics.rejections.inc(outcome.rejected)
        self._metrics.conflicts.inc(bool(outcome.stale))
        for notice in outcome.notices:
            task = asyncio.create_task(events.post(self._api, notice, reporter=self._reporter))
            self._posting.add(task)
            task.add_done_callback(self._posting.discard)

    async def follow_leadership(self) -> None:
        """Start over whenever leadership changes: what was read under another one does not count."""
        while True:
            await self._leader.changed.wait()
            self._leader.changed.clear()
            self._led = False
            self.wakeups.wake("leadership")


async def _until_done(attempt: Callable[[], Awaitable[None]], *, what: str) -> None:
    delay = float(OPERATOR_RETRY_FIRST)
    while True:
        try:
            await attempt()
            return
        except ApiError as error:
            log.warning("cannot %s yet, trying again in %.1f s: %s", what, delay, error)
            await asyncio.sleep(delay)
            delay = min(2 * delay, OPERATOR_RETRY)
