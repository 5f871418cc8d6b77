"""Rules for what a gateway's proxy sends on behalf of a policy.

The proxy binds the policy's identity source (`names.proxy_source`), an address that never leaves the node: here it is
treated like one more pod of that policy, with two differences. It starts in the output hook, and what the policy does
not let out is dropped, as no other address could be right. The proxy's user may open no other connection.

Invariants: pure. Must not be bypassed: a packet with an identity source either gets SELECTED or is dropped.
"""

from collections.abc import Iterator

from sluice_api.names import PROXY_SOURCES_V4, PROXY_SOURCES_V6, PROXY_UID
from sluice_node.core.steering import drop
from sluice_node.core.tables import Chain, Set
from sluice_node.core.view import IP, VERSIONS, View

IDENTITY, FORGED, PROXY = "identity", "forged_identity", "proxy_other"
COUNTERS = (IDENTITY, FORGED, PROXY)
SOURCES = {4: PROXY_SOURCES_V4, 6: PROXY_SOURCES_V6}

STRAY_RULES = tuple(
    f'iifname != "lo" {IP[v]} {field} {SOURCES[v]} {drop(FORGED)}' for v in VERSIONS for field in ("saddr", "daddr")
)
"""For the raw prerouting hook: identity addresses exist inside the node only."""


def sets(view: View) -> Iterator[Set]:
    """Identity source -> the chain of its policy."""
    identities = list(view.identities())
    for v in VERSIONS:
        elements = {str(address): f"goto identity_{number}" for address, number in identities if address.version == v}
        yield Set(f"identities{v}", f"typeof {IP[v]} saddr : verdict", elements, is_map=True)


def chains(view: View) -> Iterator[Chain]:
    """The output hook and the chains it leads to."""
    if view.desired.is_gateway:
        for policy in view.policies:
            yield Chain(
                f"identity_{policy.policy_id}",
                (
                    *(f"{IP[v]} daddr @excluded{v} {drop(IDENTITY)}" for v in VERSIONS),
                    f"fib daddr type {{ local, broadcast, multicast }} {drop(IDENTITY)}",
                    f"jump match_{policy.policy_id}",
                    drop(IDENTITY),
                ),
            )
    yield Chain(
        "proxy",
        (
            'oifname "lo" accept',
            "meta l4proto { tcp, udp } th dport 53 accept",
            f"meta l4proto tcp counter name {PROXY} reject with tcp reset",
            f"counter name {PROXY} reject",
        ),
    )
    yield Chain(
        "output",
        (
            *(f"{IP[v]} saddr vmap @identities{v}" for v in VERSIONS),
            *(f"{IP[v]} saddr {SOURCES[v]} {drop(IDENTITY)}" for v in VERSIONS),
            f"meta skuid {PROXY_UID} ct state new goto proxy",
        ),
        hook="type route hook output priority -90",
    )
