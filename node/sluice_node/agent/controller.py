"""The agent's loop: whatever changes -> snapshot -> what the node must do -> the kernel -> what is reported.

Rules:
- Changes that come together are taken together (AGENT_COALESCE); the death or return of a gateway is not kept waiting,
  and touches nothing but what depends on it.
- Nothing is programmed before everything was read, nor, after a restart, before the gateways that the kernel already
  uses were probed: until then the kernel goes on with what it has.
- When gateways came or went, the holder of an egress IP announces it again, ANNOUNCEMENTS times a second apart: a
  gateway that was cut off may have announced it meanwhile.
- A new egress IP is on trial: if the API server went out of reach with it, it is taken back (`reach`).
- What the kernel refused is tried again, ever more rarely, and is said in the log and in the EgressNode: what it
  refused of one pool, policy or peer by itself (`core.troubles`), while everything else goes on.
- The death of a gateway waits for no such thing: what is programmed follows it, whatever else could not be.
- On a node that the preflight objects to nothing is programmed.
- While the EgressNode bears the annotation `sluice.dev/remove` nothing of Sluice is in the node. When such an
  EgressNode is deleted that ends the uninstallation: it is not made anew by this process.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Hashable, Iterable
from dataclasses import dataclass, replace
from typing import Final

from sluice_api.reasons import Reason
from sluice_api.timers import (
    AGENT_COALESCE,
    AGENT_RETRY_FIRST,
    AGENT_RETRY_KERNEL,
    FIRST_VERDICTS,
    KERNEL_CHECK,
)
from sluice_node.agent.backoff import Backoff
from sluice_node.agent.changes import Changes
from sluice_node.agent.kernel_worker import KernelWorker
from sluice_node.agent.metrics import Metrics
from sluice_node.agent.preflight import Preflight
from sluice_node.agent.prober import Prober
from sluice_node.agent.reach import Reach
from sluice_node.agent.retries import Retries
from sluice_node.agent.state import ClusterState
from sluice_node.core.desired import Address, DesiredNode
from sluice_node.core.failures import Failure
from sluice_node.core.preflight import Finding
from sluice_node.core.report import Account, Verdict, programmed_account, refused_account
from sluice_node.core.resolve import UnresolvableError, hosted_pools, probed, react, resolve
from sluice_node.core.select import Selection, select
from sluice_node.core.snapshot import Snapshot
from sluice_node.core.trial import additions
from sluice_node.core.troubles import Trouble, of_all, troubles
from sluice_node.kernel.errors import KernelError

log = logging.getLogger(__name__)

ANNOUNCEMENTS: Final = 3
PROGRAMMED: Final = Verdict(True, Reason.PROGRAMMED, "the kernel holds what was last decided")
REMOVED: Final = Verdict(False, Reason.REMOVED, "taken out of the node, as the annotation sluice.dev/remove asks")


@dataclass(frozen=True, slots=True)
class Programmed:
    """What the kernel holds, but for the `failures`, and what it follows from."""

    snapshot: Snapshot
    selection: Selection
    desired: DesiredNode
    failures: tuple[Failure, ...] = ()

    @property
    def held(self) -> dict[Address, str]:
        """The egress IPs that this node answers for -> interface."""
        unanswered = {failure.unanswered for failure in self.failures}
        return {a: interface for a, interface in self.desired.announced.items() if a not in unanswered}


class Controller:
    """`settled` is called after every attempt, when `account` and `verdict` may be new."""

    def __init__(
        self,
        changes: Changes,
        *,
        state: ClusterState,
        prober: Prober,
        kernel: KernelWorker,
        metrics: Metrics,
        reach: Reach,
        preflight: Preflight,
        settled: Callable[[], None],
    ) -> None:
        self.account: Account | None = None
        self.verdict: Verdict | None = None
        self.programmed: Programmed | None = None
        self.removed = False
        self._changes = changes
        self._state = state
        self._prober = prober
        self._kernel = kernel
        self._metrics = metrics
        self._reach = reach
        self._preflight = preflight
        self._kept_out: str | None = None
        self._settled = settled
        self._announcements = 0
        self._force = False
        self._failing = False
        self._again: asyncio.TimerHandle | None = None
        self._retries = Retries(lambda: changes.note("it is time to try again what the kernel refused"))
        self._troubles: tuple[Trouble, ...] = ()
        self._backoff = Backoff(first=AGENT_RETRY_FIRST, most=AGENT_RETRY_KERNEL)
        self._complaint: str | None = None
        self._waiting: list[str] | None = None
        self._pass_began: float | None = None
        self._held: frozenset[Address] = frozenset()
        """Egress IPs that the kernel knew when this process began."""

    async def run(self) -> None:
        """Never returns; cancel it."""
        while True:
            self._pass_began = None
            reasons, gateways = await self._changes.wait(together=AGENT_COALESCE)
            self._pass_began = asyncio.get_running_loop().time()
            if gateways and self.programmed is not None:
                await self._react(self.programmed)
            if reasons or self.programmed is None:
                await self._full_pass(reasons)

    def stuck(self, *, for_seconds: float) -> bool:
        """Whether a pass has taken longer than this and is not over."""
        return self._pass_began is not None and asyncio.get_running_loop().time() - self._pass_began > for_seconds

    async def watch_kernel(self) -> None:
        """Put back what others take away. Never returns; cancel it."""
        while True:
            await asyncio.sleep(KERNEL_CHECK)
            if self.programmed is None or self.removed:
                continue
            await self._announce(self.programmed)
            try:
                intact = await self._kernel.check()
            except KernelError as error:
                log.debug("the kernel could not be checked: %s", error)
                intact = False
            if not intact and not self.removed:
                self._force = True
                self._changes.note("somebody changed what Sluice has in the kernel")

    async def _full_pass(self, reasons: Iterable[str]) -> None:
        own = self._state.own()
        if self.removed and (own is None or own.remove):
            return
        if own is not None and own.remove:
            await self._remove()
            return
        self.removed = False
        snapshot = self._state.snapshot(self._prober.alive(), self._reach.withheld())
        if snapshot is None:
            self._say_what_is_missing()
            return
        selection = select(snapshot.pods, snapshot.policies)
        obstacle = await self._preflight.obstacle()
        if obstacle is not None:
            await self._keep_out(snapshot, selection, obstacle)
            return
        self._kept_out = None
        try:
            desired = resolve(snapshot, selection)
            self._prober.follow(probed(snapshot, desired))
            if self.programmed is None and self.account is None:
                self._held = await self._kernel.egress_ips()
                await self._prober.first_verdicts(within=FIRST_VERDICTS)
            snapshot = replace(snapshot, alive=self._prober.alive())
            desired = react(desired, snapshot)
            await self._program(Programmed(snapshot, selection, desired), reasons, anew=self._retries.take_due())
        except (KernelError, UnresolvableError) as error:
            self._refused(snapshot, selection, error)
        else:
            self._failing, self._complaint = False, None
            self._backoff.reset()
            self._succeeded()
        self._settled()

    async def _react(self, last: Programmed) -> None:
        """Follow the gateways that are alive now, at once; everything else stays as it is."""
        snapshot = replace(last.snapshot, alive=self._prober.alive())
        try:
            await self._program(
                replace(last, snapshot=snapshot, desired=react(last.desired, snapshot)), ["a gateway died or came back"]
            )
        except KernelError as error:
            self._refused(snapshot, last.selection, error)
        else:
            if not self._failing:  # else something newer could not be programmed, and that is what is said
                self._succeeded()
            self._announcements = ANNOUNCEMENTS
            await self._announce(self.programmed or last)
        self._settled()

    async def _announce(self, programmed: Programmed) -> None:
        """Announce what this node holds, if that is due."""
        held = programmed.held
        if self._announcements == 0 or not held:
            return
        self._announcements -= 1
        try:
            await self._kernel.announce(held)
        except KernelError as error:
            log.warning("held egress IPs could not be announced again: %s", error)

    async def _program(self, wanted: Programmed, reasons: Iterable[str], *, anew: bool = False) -> None:
        last = self.programmed.desired if self.programmed is not None else None
        failures = self.programmed.failures if self.programmed is not None else ()
        if wanted.desired != last or self._force or anew:
            added = additions(last, wanted.desired, wanted.snapshot.claims, held=self._held)
            in_reach = await self._reach.before(added)
            started = time.perf_counter()
            try:
                report = await self._kernel.apply(wanted.desired, anew=anew)
            finally:
                # Also what was applied half way may do harm.
                self._reach.applied(added, in_reach=in_reach)
            took = time.perf_counter() - started
            failures = report.failures
            self._metrics.applied(took)
            what = _difference(last, wanted.desired)
            log.info("programmed in %.1f ms: %s; because %s", took * 1e3, what, _why(reasons))
        self._force = False
        self.programmed = replace(wanted, failures=failures)
        self._retries.follow(failures)

    def _succeeded(self) -> None:
        """What is programmed is what was last decided: account for it, and for what is wrong with single items."""
        done = self.programmed
        if done is None:
            return
        found = troubles(done.snapshot, done.desired, done.failures)
        before = self.account.revision if self.account is not None else 0
        self.account = programmed_account(done.snapshot, done.selection, before=before, troubles=found)
        if found:
            words = "; ".join(trouble.message for trouble in found[:3])
            more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
            self.verdict = Verdict(False, Reason.NODE_TROUBLE, f"all is programmed but for this: {words}{more}"[:4000])
        else:
            self.verdict = _programmed_but(self._preflight.warnings) if self._preflight.warnings else PROGRAMMED
        self._say_what_is_wrong(found)

    def _refused(self, snapshot: Snapshot, selection: Selection, error: Exception) -> None:
        self._metrics.apply_failed()
        self.account = refused_account(snapshot, selection, last=self.account)
        self.verdict = Verdict(False, Reason.KERNEL_ERROR, str(error)[:4000])
        seconds = self._backoff.seconds()
        if self._complaint != str(error):
            self._complaint = str(error)
            log.error("cannot program the node: %s; what it holds stays, and this is tried again", error)
        self._force = self._failing = True
        if self._again is not None:
            self._again.cancel()
        self._again = asyncio.get_running_loop().call_later(seconds, self._changes.note, "the last attempt failed")

    async def _keep_out(self, snapshot: Snapshot, selection: Selection, obstacle: Finding) -> None:
        """Program nothing. What the kernel holds of former times stays while pods here are selected, as without it they
        would leave with another address; else it is taken out."""
        held = self._kept_out is None or self.programmed is not None
        if held and not selection.pods and not hosted_pools(snapshot):
            self.programmed = self.account = None
            self._retries.follow(())
            self._prober.follow(())
            try:
                await self._kernel.remove()
            except KernelError as error:
                log.warning("cannot take Sluice out of the node: %s", error)
        if self._kept_out != obstacle.message:
            log.error("%s", obstacle.message)
        self._kept_out = obstacle.message
        self._failing = True
        told = of_all(selection, obstacle.message)
        self.account = replace(refused_account(snapshot, selection, last=self.account), troubles=told)
        self.verdict = Verdict(False, obstacle.reason or Reason.KERNEL_ERROR, obstacle.message[:4000])
        self._settled()

    async def _remove(self) -> None:
        self.programmed = None  # the death of a gateway must not bring anything back
        self._retries.follow(())
        try:
            await self._kernel.remove()
        except KernelError as error:
            if self._complaint != str(error):
                self._complaint = str(error)
                log.error("cannot take Sluice out of the node: %s; this is tried again", error)
            self.verdict = Verdict(False, Reason.KERNEL_ERROR, str(error)[:4000])
            asyncio.get_running_loop().call_later(
                self._backoff.seconds(), self._changes.note, "the last attempt failed"
            )
        else:
            log.info("took everything of Sluice out of the node, as the annotation sluice.dev/remove asks")
            self.removed, self.account, self.verdict = True, None, REMOVED
            self._prober.follow(())
            self._backoff.reset()
        self._settled()

    def _say_what_is_wrong(self, found: tuple[Trouble, ...]) -> None:
        for trouble in sorted(set(found) - set(self._troubles), key=str):
            log.error("%s: %s; everything else is programmed", trouble.about, trouble.message)
        for trouble in sorted(set(self._troubles) - set(found), key=str):
            log.info("%s: not any more: %s", trouble.about, trouble.message)
        self._troubles = found

    def _say_what_is_missing(self) -> None:
        missing = self._state.missing()
        if missing != self._waiting:
            self._waiting = missing
            log.info("nothing is changed in the kernel yet: waiting for %s", ", ".join(missing))


def _programmed_but(warnings: Iterable[str]) -> Verdict:
    return replace(
        PROGRAMMED, message="; ".join((PROGRAMMED.message, *(f"warning: {each}" for each in warnings)))[:4000]
    )


def _difference(last: DesiredNode | None, new: DesiredNode) -> str:
    """In a few words, what is different."""
    if last is None:
        return f"{len(new.pods)} addresses of selected pods, {len(new.policies)} policies, {len(new.peers)} peers"
    before, now = _gateways(last), _gateways(new)
    parts = [f"gateway {entry} {'in' if entry in now else 'out'}" for entry in sorted(before ^ now)]
    pairs: tuple[tuple[str, Collection[Hashable], Collection[Hashable]], ...] = (
        ("pod addresses", last.pods.keys() | last.blocked_pods, new.pods.keys() | new.blocked_pods),
        ("policies", last.policies, new.policies),
        ("held egress IPs", last.announced.keys(), new.announced.keys()),
        ("peers", last.peers, new.peers),
        ("slices", last.slices, new.slices),
    )
    for word, old, current in pairs:
        if old != current:
            parts.append(f"{word} +{len(set(current) - set(old))} -{len(set(old) - set(current))}")
    return ", ".join(parts) or "the rest"


def _gateways(desired: DesiredNode) -> set[str]:
    return {f"{node} of {pool}" for pool, nodes in desired.live_gateways.items() for node in nodes}


def _why(reasons: Iterable[str]) -> str:
    listed = list(dict.fromkeys(reasons))
    rest = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return "; ".join(listed[:3]) + rest if listed else "of nothing in particular"
