"""How an egress IP is: whether traffic can leave with it and come back.

Invariants:
- A failover writes nothing here: while another gateway of the pool is ready, the one that says it holds the address is
  believed, since its successor says so itself within a second. So an EgressIP is written when it comes, when it rests,
  and when its pool or its holder is lost for longer, never once a minute.
- Pure: no I/O; the time is an argument.
"""

from sluice_api.reasons import ConditionType, Reason
from sluice_operator.core.conditions import Verdict, conditions
from sluice_operator.core.index import Index
from sluice_operator.core.snapshot import Condition, EgressIP, Pool, Slice

Trouble = tuple[Reason, str]


def conditions_of(
    claim: EgressIP, pool: Pool | None, index: Index, *, slices: tuple[Slice, ...], resting_since: str, now: str
) -> tuple[Condition, ...]:
    """The conditions of a claim that has these slices now and rests since then (empty: a policy has it)."""
    verdict = _ready(claim, pool, index, slices=slices, resting=bool(resting_since))
    return conditions(claim.conditions, (verdict,), generation=claim.generation, now=now)


def _ready(claim: EgressIP, pool: Pool | None, index: Index, *, slices: tuple[Slice, ...], resting: bool) -> Verdict:
    trouble = (
        _resting(claim) if resting else _on_the_way_out(claim, index, slices) or _on_the_way_back(claim, pool, index)
    )
    if trouble is None:
        return Verdict(ConditionType.READY, "True", Reason.READY, "")
    return Verdict(ConditionType.READY, "False", *trouble)


def _resting(claim: EgressIP) -> Trouble:
    return Reason.RESTING, f"no policy uses it; it is kept for policy {claim.policy}, see status.restingSince"


def _on_the_way_out(claim: EgressIP, index: Index, slices: tuple[Slice, ...]) -> Trouble | None:
    if not slices:
        return Reason.WAITING_FOR_NODES, "no node has ports of it yet; see whether the sluice-agent DaemonSet runs"
    if not index.ready_gateways.get(claim.pool):
        return Reason.NO_GATEWAY_READY, f"pool {claim.pool} has no ready gateway; see its conditions"
    return None


def _on_the_way_back(claim: EgressIP, pool: Pool | None, index: Index) -> Trouble | None:
    """Replies come to the holder; a pool that announces nothing has none, the network leads them to the gateways."""
    if pool is not None and not pool.announces:
        return None
    if not claim.holder:
        message = f"no gateway of pool {claim.pool} says that it answers for it; see the agents of its gateways"
        return Reason.NO_HOLDER, message
    if claim.holder in index.silent and claim.holder not in index.ready_gateways.get(claim.pool, ()):
        message = f"node {claim.holder} answered for it and gives no sign of life; see the sluice-agent pod there"
        return Reason.AGENT_SILENT, message
    return None
