"""What is wrong on this node with one pool, policy or address, while everything else works.

It is said in EgressNode.status.troubles, and the operator says it on at the pool or policy: whoever wrote what does not
work reads it there. Rules:
- While a node cannot answer for what it holds of a pool it does not call itself a gateway of that pool, so that another
  node holds its addresses; it goes on trying.
- An egress IP that is somebody's (`refused`) is named with the policy that has it: what that selects is dropped here.
- A policy that the kernel refuses is named, and holds back no other one's acknowledgement.
Pure: no I/O, no clock; the number of troubles that are told is bounded.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from sluice_node.core.desired import Address, DesiredNode
from sluice_node.core.failures import Failure
from sluice_node.core.objects import Key
from sluice_node.core.resolve import holds, interface_for, unfit
from sluice_node.core.select import Selection
from sluice_node.core.snapshot import Snapshot

MOST: Final = 64
_LONGEST: Final = 1024
"""What the schema of EgressNode admits."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """One of them, with what it is about as far as that is known. `unanswered`: this node holds an address of the pool,
    or would, and cannot answer for it."""

    message: str
    pool: str | None = None
    policy: Key | None = None
    address: Address | None = None
    unanswered: bool = False

    @property
    def about(self) -> str:
        """Pool, policy and address, as far as they are known."""
        known = (("pool", self.pool), ("policy", self.policy), ("address", self.address))
        return ", ".join(f"{kind} {value}" for kind, value in known if value is not None) or "the node"

    def document(self) -> dict[str, Any]:
        """As EgressNode.status has it."""
        about: dict[str, Any] = {}
        if self.pool is not None:
            about["pool"] = self.pool
        if self.policy is not None:
            about["policy"] = {"namespace": self.policy.namespace, "name": self.policy.name}
        if self.address is not None:
            about["address"] = str(self.address)
        return about | {"message": self.message[:_LONGEST]}


def troubles(snapshot: Snapshot, desired: DesiredNode, failures: Iterable[Failure]) -> tuple[Trouble, ...]:
    """Everything that is wrong: what cannot be, by what is known of the node, and what the kernel refused."""
    found = {
        *_interfaces(snapshot),
        *_nowhere(snapshot, desired),
        *_somebodys(snapshot),
        *_refused(snapshot, failures),
    }
    return tuple(sorted(found, key=_rank))


def of_all(selection: Selection, why: str) -> tuple[Trouble, ...]:
    """What to say at each policy with pods here while nothing is programmed, whatever was acknowledged before."""
    return tuple(Trouble(why, policy=key) for key in sorted(selection.pods) if selection.pods[key])


def documents(found: tuple[Trouble, ...]) -> list[dict[str, Any]]:
    """The troubles as EgressNode.status has them; the last one says how many more there are."""
    if len(found) <= MOST:
        return [trouble.document() for trouble in found]
    rest = len(found) - MOST + 1
    return [trouble.document() for trouble in found[: MOST - 1]] + [
        {"message": f"and {rest} more: see the agent's log"}
    ]


def _rank(trouble: Trouble) -> tuple[bool, str, str, str, str]:
    """Policies first: on their being named rests that they count as not programmed."""
    return trouble.policy is None, str(trouble.policy), trouble.pool or "~", str(trouble.address), trouble.message


def _interfaces(snapshot: Snapshot) -> Iterator[Trouble]:
    there = ", ".join(sorted({interface for interface, _ in snapshot.links.addresses})) or "none"
    for name in unfit(snapshot):
        message = (
            f"spec.announcement.interface: interface {snapshot.pools[name].interface} is not on node "
            f"{snapshot.node.name}; its interfaces with an address are {there}"
        )
        yield Trouble(message, pool=name, unanswered=True)


def _nowhere(snapshot: Snapshot, desired: DesiredNode) -> Iterator[Trouble]:
    for claim in holds(snapshot, desired.live_gateways):
        pool = snapshot.pools[claim.pool]
        if pool.interface is None and interface_for(pool, claim.address, snapshot.links) is None:
            message = (
                f"no interface of node {snapshot.node.name} leads to {claim.address}: "
                "name one in spec.announcement.interface"
            )
            yield Trouble(message, pool=claim.pool, address=claim.address, unanswered=True)


def _somebodys(snapshot: Snapshot) -> Iterator[Trouble]:
    claims = {claim.address: claim for claim in snapshot.egress_ips}
    for address, why in snapshot.refused.items():
        message = (
            f"egress IP {address} is not used on node {snapshot.node.name}: {why}; "
            f"add it to spec.exclude of pool {claims[address].pool}"
        )
        yield Trouble(message, pool=claims[address].pool, policy=claims[address].policy, address=address)


def _refused(snapshot: Snapshot, failures: Iterable[Failure]) -> Iterator[Trouble]:
    pools = {claim.address: claim.pool for claim in snapshot.egress_ips}
    keys = {policy.policy_id: policy.key for policy in snapshot.policies if policy.policy_id is not None}
    for failure in failures:
        if failure.policy_id is not None:
            yield Trouble(failure.message, policy=keys.get(failure.policy_id))
        elif failure.unanswered is not None:
            address = failure.unanswered
            yield Trouble(failure.message, pool=pools.get(address), address=address, unanswered=True)
        else:
            yield Trouble(failure.message)
