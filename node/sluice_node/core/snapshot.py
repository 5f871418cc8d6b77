"""All that an agent knows at one moment, as one immutable value.

Invariants: no I/O, no clock; what follows from it is worked out once, when it is asked for.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from sluice_node.core.desired import Address, Network
from sluice_node.core.links import Links
from sluice_node.core.objects import EgressIP, EgressNode, Endpoints, Node, Pod, Policy, Pool, ServiceCIDR
from sluice_node.core.refused import Taken


@dataclass(frozen=True)
class Snapshot:
    """All that is known at one moment. `alive` are the nodes whose kernels answer this node's probes."""

    node: Node
    links: Links
    pods: tuple[Pod, ...] = ()
    policies: tuple[Policy, ...] = ()
    pools: Mapping[str, Pool] = field(default_factory=dict)
    egress_ips: tuple[EgressIP, ...] = ()
    egress_nodes: tuple[EgressNode, ...] = ()
    service_cidrs: tuple[ServiceCIDR, ...] = ()
    api_endpoints: tuple[Endpoints, ...] = ()
    alive: frozenset[str] = frozenset()
    namespace: str = "sluice-system"
    """Sluice's own: only there are gateway pods believed."""
    never_redirected: frozenset[Network] = frozenset()
    """Further ranges, from the command line."""
    api_server: frozenset[Address] = frozenset()
    """Addresses that the agent itself finds the API server at."""
    withheld: Mapping[Address, str] = field(default_factory=dict)
    """Egress IPs that were tried and taken back -> why."""

    @cached_property
    def taken(self) -> Taken:
        """Whose an address is."""
        return Taken(self)

    def refuses(self, address: Address) -> str | None:
        """Why this node has nothing to do with an egress IP; None when nothing speaks against it."""
        return self.taken.why(address) or self.withheld.get(address)

    @cached_property
    def refused(self) -> Mapping[Address, str]:
        """The claimed addresses that are refused -> why."""
        reasons = ((claim.address, self.refuses(claim.address)) for claim in self.egress_ips)
        return {address: why for address, why in reasons if why is not None}

    @cached_property
    def claims(self) -> Mapping[Address, EgressIP]:
        """Egress IP -> its claim, without those that are refused, and those that rest: they are nobody's."""
        return {
            claim.address: claim for claim in self.egress_ips if not claim.resting and claim.address not in self.refused
        }
