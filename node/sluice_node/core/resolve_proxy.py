"""What the proxies of a pool are told: its policies, and what they must never dial.

The document is version 1 of the agreement between agent and proxy. Invariants: pure; equal input gives equal bytes, so
that nothing is sent twice.
"""

import json
from collections.abc import Iterable
from typing import Any

from sluice_api.names import proxy_source
from sluice_node.core.desired import Destination, Network
from sluice_node.core.objects import Policy
from sluice_node.core.resolve import assignment, excluded
from sluice_node.core.snapshot import Snapshot


def proxy_line(pool: str, snapshot: Snapshot) -> bytes:
    """The pool's snapshot as one line of JSON, newline included."""
    claims = snapshot.claims
    policies = []
    for policy in sorted(snapshot.policies, key=lambda policy: policy.key):
        given = assignment(policy, claims)
        if given is not None and given.pool == pool and policy.policy_id is not None:
            policies.append(_policy(policy, policy.policy_id, [str(address) for address in given.addresses]))
    document = {"version": 1, "pool": pool, "policies": policies, "denied": _texts(excluded(snapshot))}
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def _policy(policy: Policy, policy_id: int, addresses: list[str]) -> dict[str, Any]:
    return {
        "id": policy_id,
        "namespace": policy.key.namespace,
        "name": policy.key.name,
        "sources": [str(proxy_source(policy_id, 4)), str(proxy_source(policy_id, 6))],
        "addresses": addresses,
        "destinations": None if policy.destinations is None else [_destination(entry) for entry in policy.destinations],
        "otherwise": policy.otherwise,
    }


def _destination(destination: Destination) -> dict[str, Any]:
    return {
        "cidrs": [str(network) for network in destination.cidrs],
        "except": [str(network) for network in destination.excluded],
        "ports": [
            {"protocol": ports.protocol, "port": ports.first, "endPort": ports.last} for ports in destination.ports
        ],
    }


def _texts(networks: Iterable[Network]) -> list[str]:
    in_order = sorted(networks, key=lambda net: (net.version, int(net.network_address), net.prefixlen))
    return [str(network) for network in in_order]
