"""What nodes could not do for one pool or policy, said at that pool or policy.

Invariants:
- A policy that a node names is not programmed there, whatever revision the node has acknowledged.
- What a tenant reads at his policy names the node, never what else the node's rules hold: the kernel's words may quote
  other tenants' policies, and stay in the EgressNode.
- Pure: no I/O, no clock.
"""

from collections.abc import Iterator

from sluice_api.reasons import Reason
from sluice_operator.core.degraded import Shortfall
from sluice_operator.core.index import Index
from sluice_operator.core.snapshot import PolicyKey
from sluice_operator.core.words import SHOWN, names


def of_pool(pool: str, index: Index) -> Iterator[Shortfall]:
    """What the pool lacks on nodes that are, or ought to be, its gateways."""
    told = [
        f"{node}: {f'{trouble.address}: ' if trouble.address else ''}{trouble.message}"
        for node, trouble in index.pool_troubles.get(pool, ())
    ]
    if told:
        more = f"; and {len(told) - SHOWN} more: see status.troubles of the EgressNodes" if len(told) > SHOWN else ""
        yield Shortfall(Reason.NODE_TROUBLE, "; ".join(told[:SHOWN]) + more)


def of_policy(key: PolicyKey, index: Index) -> Iterator[Shortfall]:
    """What the policy lacks: nodes whose kernels refuse its rules."""
    nodes = index.policy_troubles.get(key, ())
    if nodes:
        yield Shortfall(
            Reason.NODE_TROUBLE,
            f"the kernel refuses the rules of this policy on {names(nodes)}: its pods there reach nothing outside the "
            "cluster; see status.troubles of the EgressNode, and make spec.destinations simpler if it says so",
        )
