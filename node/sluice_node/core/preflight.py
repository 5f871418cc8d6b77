"""What Sluice's guarantees need of a node, judged from facts: whether to program it at all, and what to warn of.

Rules:
- A node where others use Sluice's mark bits is not programmed: their marks would lead their packets into the tunnel,
  and ours would lead ours past their rules. Only what certainly concerns these bits counts, since a false alarm is an
  outage; what may, is a warning.
- A use concerns a bit when it tests it, or sets or clears it, under a mask. A comparison with the whole mark concerns a
  packet of ours only if a mark of ours can be that value. Whoever writes the whole mark may do so to packets that are
  never ours.
- What can be tried is tried on the node's own kernel, since distributions bring features back: a version decides only
  what cannot be tried.
Pure: no I/O, no clock.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from sluice_api.reasons import Reason
from sluice_node.core.marks import OURS, PEER, SELECTED

ALL: Final = 0xFFFFFFFF
HARMLESS: Final = frozenset({0x2000})
"""Masks of others that overlap ours and do no harm: the portmap plugin of CNI marks connections to host ports, which
are inside the cluster, to masquerade them, which is too late for those that have their address."""
CONNTRACK_FILTER: Final = (5, 8)
"""Linux version since which ctnetlink takes a filter (CTA_FILTER): before, a busy table is copied at each change."""


class Act(Enum):
    """What somebody does with the mark of a packet."""

    TEST = "tests"
    CHANGE = "changes"


@dataclass(frozen=True, slots=True)
class MarkUse:
    """Somebody's rule about packet marks, `where` says which. TEST: of the bits in `mask`, for `value` (None: for
    several). CHANGE: of the bits in `mask`."""

    where: str
    act: Act
    mask: int
    value: int | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """A feature that was tried: what for, since which Linux it is there, and the kernel's words if it is not."""

    feature: str
    needed_for: str
    since: str
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found on the node. `drops` are others' chains that drop what they are not told to forward; `strict` the
    interfaces with a strict `rp_filter`; `rpfilter6` others' rules that drop IPv6 packets by their reverse path;
    `unread` what could not be looked into."""

    release: str = ""
    trials: tuple[Trial, ...] = ()
    marks: tuple[MarkUse, ...] = ()
    drops: tuple[str, ...] = ()
    strict: tuple[str, ...] = ()
    rpfilter6: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to tell; with `reason` the node is not to be programmed."""

    message: str
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the facts amount to: why the node is not programmed, if it is not, and warnings."""

    obstacle: Finding | None = None
    warnings: tuple[str, ...] = field(default=())


def judge(facts: Facts) -> Verdict:
    """What the facts amount to."""
    found = list(findings(facts))
    obstacles = [finding for finding in found if finding.reason is not None]
    return Verdict(
        obstacles[0] if obstacles else None, tuple(finding.message for finding in found if finding.reason is None)
    )


def findings(facts: Facts) -> Iterator[Finding]:
    """Everything there is to tell, obstacles first."""
    missing = [trial for trial in facts.trials if trial.refused]
    if missing:
        what = "; ".join(f"{t.feature} (Linux {t.since}; for {t.needed_for}): {t.refused}" for t in missing)
        yield Finding(
            f"the kernel {facts.release} lacks what Sluice needs, so nothing is programmed here: {what}; use a newer "
            "kernel, or load the module",
            Reason.UNSUPPORTED_KERNEL,
        )
    definite = [use for use in facts.marks if _concerns_ours(use)]
    if definite:
        yield Finding(
            f"mark bits that Sluice needs ({OURS:#010x}) are used by others, so nothing is programmed here: "
            f"{_named(map(_described, definite))}; give that program another mask, or keep Sluice off this node "
            "(agent.nodeSelector)",
            Reason.MARKS_IN_USE,
        )
    possible = [use for use in facts.marks if _may_concern_ours(use)]
    if possible:
        yield Finding(
            f"others use the whole packet mark: {_named(map(_described, possible))}; should they do so to packets of "
            "selected pods, these are lost"
        )
    if facts.drops:
        yield Finding(
            f"what is forwarded is dropped unless a rule accepts it: {_named(facts.drops)}; a rule there has to accept "
            "packets from and to egress IPs and pods"
        )
    if facts.strict:
        yield Finding(
            f"rp_filter is strict on {_named(facts.strict)}: packets that arrive there and whose answer would leave by "
            "another interface are dropped; set it to 2 or 0 if gateways have several interfaces"
        )
    if facts.rpfilter6:
        yield Finding(
            f"IPv6 packets are dropped by their reverse path: {_named(facts.rpfilter6)}; what the tunnel brings has "
            "egress IPs as source, which it may take for forged: turn it off (firewalld: IPv6_rpfilter=no)"
        )
    version = linux(facts.release)
    if version is not None and version < CONNTRACK_FILTER:
        yield Finding(
            f"Linux {facts.release} is older than {CONNTRACK_FILTER[0]}.{CONNTRACK_FILTER[1]}: each change of policies "
            "or pods copies the whole table of connections"
        )
    for what in facts.unread:
        yield Finding(f"{what}; look yourself whether anybody uses the mark bits {OURS:#010x}")


def linux(release: str) -> tuple[int, int] | None:
    """Major and minor version of a kernel's release; None when it does not begin with them."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return (int(found[1]), int(found[2])) if found else None


def _concerns_ours(use: MarkUse) -> bool:
    if not use.mask & OURS or use.mask in HARMLESS:
        return False
    if use.mask != ALL:
        return True
    return (
        use.act is Act.TEST and use.value is not None and bool(use.value & (PEER | SELECTED)) and _possible(use.value)
    )


def _may_concern_ours(use: MarkUse) -> bool:
    if use.mask != ALL or _concerns_ours(use):
        return False
    return use.act is Act.CHANGE or (use.value is not None and use.value != 0 and _possible(use.value))


def _possible(value: int) -> bool:
    """Whether the mark of a packet of ours can be this very value: nobody but Sluice marked it."""
    return value & ~OURS & ALL == 0


def _described(use: MarkUse) -> str:
    what = f"{use.value:#x}/{use.mask:#x}" if use.value is not None and use.act is Act.TEST else f"{use.mask:#x}"
    return f"{use.where} {use.act.value} {what}"


def _named(items: Iterable[str], most: int = 3) -> str:
    listed = list(dict.fromkeys(items))
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def table(facts: Facts) -> str:
    """Everything for a person: what was tried and found, and what it amounts to."""
    lines = [f"Linux {facts.release}"]
    lines += [
        f"  {'missing' if trial.refused else 'ok':8} {trial.feature:34} since {trial.since:6} for {trial.needed_for}"
        + (f": {trial.refused}" if trial.refused else "")
        for trial in facts.trials
    ]
    lines.append(f"uses of packet marks by others: {len(facts.marks) or 'none'} (Sluice's bits: {OURS:#010x})")
    lines += [f"  {_verdict(use):8} {_described(use)}" for use in facts.marks]
    told = list(findings(facts))
    lines.append("findings:" if told else "findings: none")
    lines += [f"  {finding.reason or 'warning'}: {finding.message}" for finding in told]
    return "\n".join(lines)


def _verdict(use: MarkUse) -> str:
    return "conflict" if _concerns_ours(use) else "perhaps" if _may_concern_ours(use) else "ok"
