"""May this client reach this address? The one evaluator of identity, denied networks, policy destinations and families.

Invariants: decides on the address about to be dialled, never on a name; what no rule permits is refused; an address
of a family that the policy has no egress IP for is never dialled, so nothing can leave with an address that is not
the policy's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .destination import embedded, forbidden
from .host import Address
from .policy import Destination, Policy, Snapshot
from .refusal import ProxyError, Refusal

POLICY_MARK: Final = 0x3FFF
"""The bits of a packet mark that hold the policy id."""

NOT_READY: Final = Refusal(
    503,
    ProxyError.PROXY_INTERNAL_ERROR,
    "no-snapshot",
    "The node's agent has not told this proxy its policies yet. Try again in a moment.",
)


@dataclass(frozen=True, slots=True)
class Permitted:
    """Addresses that may be dialled, in the order given."""

    addresses: tuple[Address, ...]


def identify(mark: int, snapshot: Snapshot) -> Policy | Refusal:
    """The policy of a client, from the packet mark of its connection: nothing that the client says counts."""
    policy_id = mark & POLICY_MARK
    policy = snapshot.policies.get(policy_id)
    if policy is not None:
        return policy
    if policy_id == 0:
        detail = (
            f"The client is not selected by any policy of pool {snapshot.pool}. "
            f"Make an EgressPolicy with spec.pool {snapshot.pool} that selects its pod (not a pod with hostNetwork)."
        )
        return Refusal(403, ProxyError.HTTP_REQUEST_DENIED, "not-selected", detail)
    detail = (
        f"The client is selected by policy id {policy_id}, which is not a ready policy of pool {snapshot.pool}. "
        "Use the proxy of the policy's own pool; a policy made just now becomes known within a moment."
    )
    return Refusal(403, ProxyError.HTTP_REQUEST_DENIED, "unknown-policy", detail)


def decide(snapshot: Snapshot, policy: Policy, addresses: Sequence[Address], port: int) -> Permitted | Refusal:
    """Which of the resolved addresses may be dialled; when none may, why (of the first one refused, by rule before
    by family)."""
    permitted: list[Address] = []
    refusal: Refusal | None = None
    familyless: Address | None = None
    for address in addresses:
        reason = _refuse(snapshot, policy, address, port)
        if reason is not None:
            refusal = refusal or reason
        elif address.version not in policy.egress:
            familyless = address
        else:
            permitted.append(address)
    if permitted:
        return Permitted(tuple(permitted))
    if refusal is None and familyless is not None:
        return no_family(policy, familyless.version)
    return refusal or no_address()


def no_family(policy: Policy, version: int) -> Refusal:
    """The destination needs a family that the policy has no egress IP of."""
    detail = (
        f"Policy {policy.label} has no IPv{version} egress address, and the destination needs one. "
        f"Give pool and policy IPv{version} addresses (spec.addresses.families)."
    )
    return Refusal(503, ProxyError.DESTINATION_IP_UNROUTABLE, "no-egress-address", detail)


def no_address() -> Refusal:
    """The name exists but has no address."""
    return Refusal(502, ProxyError.DNS_ERROR, "no-address", "The destination's name has no address.")


def _refuse(snapshot: Snapshot, policy: Policy, address: Address, port: int) -> Refusal | None:
    label = forbidden(address)
    if label is not None:
        return _prohibited("forbidden-address", f"{address} is never dialled: {label}.")
    inner = tuple(embedded(address))
    for candidate in (address, *inner):
        network = snapshot.denied.find(candidate)
        if network is not None:
            return _prohibited("cluster-address", f"{address} is not outside the cluster: it is within {network}.")
    if policy.destinations is None:
        return None
    matching = [entry for entry in policy.destinations if _holds(entry, address, inner)]
    if not matching:
        return _prohibited("destination", f"{address} is not within the destinations of policy {policy.label}.")
    if not any(_open(entry, port) for entry in matching):
        return _prohibited("port", f"Port {port} of {address} is not within the destinations of policy {policy.label}.")
    return None


def _holds(entry: Destination, address: Address, inner: tuple[Address, ...]) -> bool:
    if not any(address in network for network in entry.networks):
        return False
    return not any(candidate in network for network in entry.exceptions for candidate in (address, *inner))


def _open(entry: Destination, port: int) -> bool:
    return entry.ports is None or any(first <= port <= last for first, last in entry.ports)


def _prohibited(reason: str, detail: str) -> Refusal:
    return Refusal(403, ProxyError.DESTINATION_IP_PROHIBITED, reason, detail)
