"""Which tracked connections bear an address that they no longer may.

NAT decides once per connection. When a pod becomes selected, its connections still bear the node's address, and the
guard would drop them for as long as they live; when it is selected no more, they bear an egress IP that is not its own.
Either way the entry has to go: the next packet starts a new one, with the right address, and the far end resets what it
does not know. Invariants: pure; a connection to an excluded destination is never stale.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from sluice_api.names import PROXY_SOURCES_V4, PROXY_SOURCES_V6
from sluice_node.core.desired import Address, DesiredNode, Network, PolicyProgram

_PROTOCOL_NAMES: Final = {6: "TCP", 17: "UDP"}


@dataclass(frozen=True, slots=True)
class Flow:
    """A tracked connection: who opened it, whom it reaches (after DNAT), and which source the far end sees."""

    source: Address
    target: Address
    protocol: int
    target_port: int
    seen: Address
    seen_port: int


class Prefixes:
    """A set of networks with a lookup that costs one probe per prefix length in use."""

    def __init__(self, networks: Iterable[Network]) -> None:
        self._by_length: dict[tuple[int, int], set[int]] = {}
        for network in networks:
            shift = network.max_prefixlen - network.prefixlen
            self._by_length.setdefault((network.version, shift), set()).add(int(network.network_address) >> shift)

    def __contains__(self, address: Address) -> bool:
        number = int(address)
        return any(
            version == address.version and number >> shift in networks
            for (version, shift), networks in self._by_length.items()
        )


@dataclass(frozen=True)
class Judge:
    """Judges connections by what the node must do now; `former` are egress IPs it knew before."""

    desired: DesiredNode
    former: frozenset[Address] = frozenset()

    @cached_property
    def _excluded(self) -> Prefixes:
        return Prefixes(self.desired.excluded)

    @cached_property
    def _policies(self) -> dict[int, PolicyProgram]:
        return {policy.policy_id: policy for policy in self.desired.policies}

    @cached_property
    def _own_ports(self) -> dict[Address, list[range]]:
        ports: dict[Address, list[range]] = {}
        for owner in self.desired.slices:
            if owner.node == self.desired.node:
                ports.setdefault(owner.egress_ip, []).append(range(owner.first, owner.first + owner.size))
        return ports

    @cached_property
    def _egress_ips(self) -> frozenset[Address]:
        return self.former | egress_ips(self.desired)

    def is_stale(self, flow: Flow) -> bool:
        """Whether the connection's entry has to go."""
        if flow.target in self._excluded:
            return False
        policy = self._policies.get(self._policy_of(flow.source))
        if policy is None or not _matches(policy, flow):
            return flow.seen in self._egress_ips and flow.seen != flow.source
        if flow.seen not in policy.egress_ips:
            return True
        return not any(flow.seen_port in ports for ports in self._own_ports.get(flow.seen, ()))

    def _policy_of(self, source: Address) -> int:
        block = PROXY_SOURCES_V4 if source.version == 4 else PROXY_SOURCES_V6
        if source in block:
            return int(source) - int(block.network_address) if self.desired.is_gateway else 0
        return self.desired.pods.get(source, 0)


def egress_ips(desired: DesiredNode) -> frozenset[Address]:
    """Every egress IP that a node in this state could use."""
    return frozenset(a for policy in desired.policies for a in policy.egress_ips)


def _matches(policy: PolicyProgram, flow: Flow) -> bool:
    if policy.destinations is None:
        return True
    name = _PROTOCOL_NAMES.get(flow.protocol)
    return any(
        any(flow.target in cidr for cidr in destination.cidrs)
        and not any(flow.target in cidr for cidr in destination.excluded)
        and (
            not destination.ports
            or any(p.protocol == name and p.first <= flow.target_port <= p.last for p in destination.ports)
        )
        for destination in policy.destinations
    )


def suspects(old: DesiredNode | None, new: DesiredNode) -> tuple[frozenset[Address], frozenset[Address]]:
    """Sources whose connections may have become stale, and egress IPs that connections may no longer bear.

    After a start (`old` None) every selected pod is one: what happened before is not known.
    """
    if old is None:
        return frozenset(new.pods), frozenset()
    before = {p.policy_id: (p.egress_ips, p.destinations) for p in old.policies}
    after = {p.policy_id: (p.egress_ips, p.destinations) for p in new.policies}
    moved = {number for number in before.keys() | after.keys() if before.get(number) != after.get(number)}
    sources = {
        pod
        for pod in old.pods.keys() | new.pods.keys()
        if old.pods.get(pod) != new.pods.get(pod) or old.pods.get(pod) in moved or new.pods.get(pod) in moved
    }
    return frozenset(sources), egress_ips(old) - egress_ips(new)
