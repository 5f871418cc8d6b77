"""Which tracked connections bear an address that they no longer may.

NAT decides once per connection. When a pod becomes selected, its connections still bear the node's address, and the
guard would drop them for as long as they live; when it is selected no more, they bear an egress IP that is not its own;
when its node's slices change, a port whose replies go to another node. In each case the entry has to go: the next
packet starts a new one, with the right address, and the far end resets what it does not know.

After a start what happened before is not known, so every connection is judged. Invariants: pure; a connection is stale
exactly if it is not one that the rules of now would make.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Final

from sluice_api.names import PROXY_SOURCES_V4, PROXY_SOURCES_V6, proxy_source
from sluice_node.core.desired import Address, DesiredNode, Network, PolicyProgram
from sluice_node.core.view import VERSIONS

LONGEST_ANSWER: Final = 256
"""Connections of one address that are told at once."""
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


def flow_line(flows: Iterable[Flow]) -> bytes:
    """Connections as one line of JSON, newline included; of many only LONGEST_ANSWER."""
    entries = [
        {
            "protocol": _PROTOCOL_NAMES.get(flow.protocol, str(flow.protocol)),
            "target": str(flow.target),
            "port": flow.target_port,
            "seen": str(flow.seen),
            "seenPort": flow.seen_port,
        }
        for flow in islice(flows, LONGEST_ANSWER)
    ]
    return json.dumps(entries, separators=(",", ":")).encode() + b"\n"


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
    def _ranges(self) -> Prefixes:
        return Prefixes(self.desired.pool_ranges)

    @cached_property
    def _policies(self) -> dict[int, PolicyProgram]:
        return {policy.policy_id: policy for policy in self.desired.policies}

    @cached_property
    def _own_ports(self) -> Mapping[Address, list[range]]:
        ports: dict[Address, list[range]] = {}
        for owner in self.desired.slices:
            if owner.node == self.desired.node:
                ports.setdefault(owner.egress_ip, []).append(range(owner.first, owner.first + owner.size))
        return ports

    @cached_property
    def _egress_ips(self) -> frozenset[Address]:
        return self.former | egress_ips(self.desired) | {owner.egress_ip for owner in self.desired.slices}

    def is_stale(self, flow: Flow) -> bool:
        """Whether the connection's entry has to go."""
        policy = self._policies.get(self._policy_of(flow.source))
        if policy is None or flow.target in self._excluded or not _matches(policy, flow):
            return flow.seen != flow.source and self._is_egress_ip(flow.seen)
        if flow.seen not in policy.egress_ips:
            return True
        return not any(flow.seen_port in ports for ports in self._own_ports.get(flow.seen, ()))

    def _is_egress_ip(self, address: Address) -> bool:
        """Whether a connection has this address from Sluice only: one of the node's own may be masquerading's."""
        known = address in self._egress_ips or address in self._ranges
        return known and address not in self.desired.own_addresses

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


@dataclass(frozen=True)
class Suspects:
    """Connections that may have become stale: those that one of `sources` opened, whose far end sees one of `seen`, or
    that go to one of `targets`; or, with `everything`, all."""

    sources: frozenset[Address] = frozenset()
    seen: frozenset[Address] = frozenset()
    targets: frozenset[Network] = frozenset()
    everything: bool = False

    @cached_property
    def _targets(self) -> Prefixes:
        return Prefixes(self.targets)

    def __contains__(self, flow: Flow) -> bool:
        return self.everything or flow.source in self.sources or flow.seen in self.seen or flow.target in self._targets


def suspects(old: DesiredNode | None, new: DesiredNode) -> Suspects:
    """The connections that the step from `old` to `new` may have made stale; `old` None: after a start."""
    if old is None:
        return Suspects(everything=True)
    before = {p.policy_id: (p.egress_ips, p.destinations) for p in old.policies}
    after = {p.policy_id: (p.egress_ips, p.destinations) for p in new.policies}
    moved = {number for number in before.keys() | after.keys() if before.get(number) != after.get(number)}
    sources: set[Address] = {
        pod
        for pod in old.pods.keys() | new.pods.keys()
        if old.pods.get(pod) != new.pods.get(pod) or old.pods.get(pod) in moved or new.pods.get(pod) in moved
    }
    proxied = moved if old.is_gateway == new.is_gateway else before.keys() | after.keys()
    if old.is_gateway or new.is_gateway:
        sources |= {proxy_source(number, version) for number in proxied for version in VERSIONS}
    seen = egress_ips(old) - egress_ips(new)
    if old.slices != new.slices:
        seen |= _cut_short(old, new)
    # A destination that came to be inside the cluster, or is so no longer, matters to who is redirected only.
    redirected = old.pods or new.pods or old.is_gateway or new.is_gateway
    targets = old.excluded ^ new.excluded if redirected else frozenset()
    return Suspects(frozenset(sources), seen, targets)


def _cut_short(old: DesiredNode, new: DesiredNode) -> frozenset[Address]:
    """The egress IPs of which this node lost a slice."""
    lost = {owner for owner in old.slices if owner.node == old.node}
    lost.difference_update(owner for owner in new.slices if owner.node == new.node)
    return frozenset(owner.egress_ip for owner in lost)
