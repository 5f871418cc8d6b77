"""Conditions and counts: what is written about a policy and a pool for people and programs to read.

Invariants:
- Honest: `Programmed=True` only when every node's agent says that it has programmed this very state, and lives.
- Every message of a condition that is not True names the object, the value and what to do about it.
- Pure: no I/O; the time is an argument.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from sluice_api.reasons import ConditionType, Reason
from sluice_operator.core import silence, troubles
from sluice_operator.core.conditions import Verdict, conditions
from sluice_operator.core.degraded import Shortfall, degraded, stalled
from sluice_operator.core.index import Index
from sluice_operator.core.moved import Move
from sluice_operator.core.pools import Refusal
from sluice_operator.core.snapshot import Address, NodePolicy, Policy, PolicyStatus
from sluice_operator.core.words import count, names


@dataclass(frozen=True, slots=True)
class PolicyFacts:
    """What the rest of the plan found out about one policy."""

    refusal: Refusal | None
    """Why it is not accepted."""
    unassigned: tuple[Refusal, ...]
    """What it lacks: addresses, ports, an id."""
    addresses: tuple[Address, ...]
    outside: tuple[Address, ...]
    moved: tuple[Move, ...]
    """Addresses that others have replaced a short while ago."""
    taken: tuple[str, ...]
    """Addresses of it that somebody else has, too, and who."""
    futile: tuple[Shortfall, ...]
    """What of it no packet of this cluster can use."""
    id: int | None
    newest_revision: int
    """The highest revision of any policy so far; a new one is above it."""


def policy_status(policy: Policy, facts: PolicyFacts, index: Index, *, now: str) -> PolicyStatus:
    """The status a policy ought to have.

    A new revision is drawn whenever what agents must program changes. It is above every revision so far, so that an
    agent which has seen a later one has seen this one too, whatever order the statuses were decided in.
    """
    accepted = _accepted(facts)
    assigned = _assigned(policy, facts)
    old = policy.status
    changed = (
        old.observed_generation != policy.generation
        or old.id != facts.id
        or old.addresses != facts.addresses
        or not old.revision
        or _was(old, ConditionType.ACCEPTED) != accepted.status
    )
    revision = max(policy.resource_version, facts.newest_revision + 1) if changed else old.revision
    reports = index.reports.get(policy.key, ())
    waiting = _waiting(policy, revision, index)
    silent = silence.of_policy(old, index, reports=reports, waiting=waiting)
    programmed = _programmed(facts, index, waiting, silent)
    concerned = {name for name, report in reports if report.pods} | set(waiting)
    ready = _ready(policy, (accepted, assigned, programmed), index, reports)
    verdicts = (accepted, assigned, programmed, ready)
    lacking = degraded(
        (*_shortfalls(facts), *facts.futile, *filter(None, (silent,)), *troubles.of_policy(policy.key, index))
    )
    return PolicyStatus(
        observed_generation=policy.generation,
        id=facts.id,
        revision=revision,
        addresses=facts.addresses,
        pods=sum(report.pods for _, report in reports),
        nodes_concerned=len(concerned),
        nodes_programmed=len(concerned.difference(waiting)),
        conditions=conditions(
            old.conditions,
            (*verdicts, lacking, stalled(verdicts)),
            generation=policy.generation,
            now=now,
        ),
    )


def _accepted(facts: PolicyFacts) -> Verdict:
    if facts.refusal is not None:
        return Verdict(ConditionType.ACCEPTED, "False", facts.refusal.reason, facts.refusal.message)
    return Verdict(ConditionType.ACCEPTED, "True", Reason.ACCEPTED, "")


def _assigned(policy: Policy, facts: PolicyFacts) -> Verdict:
    if facts.unassigned:
        message = "; ".join(refusal.message for refusal in facts.unassigned)
        passing = all(refusal.passing for refusal in facts.unassigned)
        return Verdict(ConditionType.ASSIGNED, "False", facts.unassigned[0].reason, message, passing)
    if not facts.addresses:
        message = facts.refusal.message if facts.refusal is not None else "no address has been claimed yet"
        return Verdict(ConditionType.ASSIGNED, "False", Reason.PENDING, message)
    if facts.moved:
        message = "; ".join(map(str, facts.moved))
        return Verdict(ConditionType.ASSIGNED, "True", Reason.ADDRESS_CHANGED, message)
    message = ""
    if facts.outside:
        message = (
            f"{names(facts.outside)} is no longer within pool {policy.pool} and stays assigned; "
            "to take another, request it in spec.addresses.requested"
        )
    return Verdict(ConditionType.ASSIGNED, "True", Reason.ASSIGNED, message)


def _waiting(policy: Policy, revision: int, index: Index) -> dict[str, str]:
    """Nodes that have not programmed this state, and what their agents say is the matter."""
    waiting = {node.name: node.trouble for node in index.behind(revision)}
    for name, report in index.reports.get(policy.key, ()):
        if report.generation != policy.generation:
            waiting.setdefault(name, "")
    for name in index.policy_troubles.get(policy.key, ()):
        waiting[name] = "its kernel refuses the rules of this policy"
    return waiting


def _programmed(facts: PolicyFacts, index: Index, waiting: dict[str, str], silent: Shortfall | None) -> Verdict:
    kind = ConditionType.PROGRAMMED
    if not facts.addresses or facts.id is None:
        message = "nothing to program before addresses are assigned; traffic of selected pods is dropped"
        return Verdict(kind, "False", Reason.PENDING, message)
    if not index.working:
        message = "no node agent has reported yet; see whether the sluice-agent DaemonSet runs"
        return Verdict(kind, "False", Reason.WAITING_FOR_NODES, message)
    waiting = {name: trouble for name, trouble in waiting.items() if name not in index.silent}
    if not waiting:
        return Verdict(kind, "True", Reason.PROGRAMMED, "") if silent is None else silence.unknown(silent)
    message = f"waiting for {count(len(waiting), 'node')}: {names(sorted(waiting))}"
    causes = sorted(f"{name}: {cause}" for name, cause in waiting.items() if cause)
    if causes:
        message += f" ({causes[0]})"
    return Verdict(kind, "False", Reason.WAITING_FOR_NODES, message)


def _ready(
    policy: Policy, others: tuple[Verdict, ...], index: Index, reports: tuple[tuple[str, NodePolicy], ...]
) -> Verdict:
    kind = ConditionType.READY
    for verdict in others:
        if not verdict.holds:
            return replace(verdict, type=kind)
    if not index.ready_gateways.get(policy.pool):
        message = (
            f"pool {policy.pool} has no ready gateway, so traffic of selected pods is dropped; "
            "the conditions of the pool say why"
        )
        return Verdict(kind, "False", Reason.NO_GATEWAY_READY, message)
    overridden = sum(report.overridden for _, report in reports)
    if overridden:
        winners = sorted({winner for _, report in reports for winner in report.overridden_by})
        whose = f"{'policy' if len(winners) == 1 else 'policies'} {names(winners)}" if winners else "another policy"
        message = (
            f"{count(overridden, 'selected pod')} on {names(name for name, report in reports if report.overridden)} "
            f"{'follows' if overridden == 1 else 'follow'} {whose} instead, of higher priority (or older); "
            "raise spec.priority or narrow a selector"
        )
        return Verdict(kind, "True", Reason.OVERRIDDEN, message)
    return Verdict(kind, "True", Reason.READY, "")


def _shortfalls(facts: PolicyFacts) -> Iterator[Shortfall]:
    if facts.taken:
        yield Shortfall(
            Reason.ADDRESS_TAKEN,
            f"in use by something else, too: {names(facts.taken)}; it stays assigned, but may not work: have it freed "
            "there, or request another address",
        )


def _was(status: PolicyStatus, kind: ConditionType) -> str | None:
    return next((condition.status for condition in status.conditions if condition.type == kind), None)
