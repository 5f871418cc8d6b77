"""Names that the programs, the chart and a person at a terminal must agree on.

Invariants: constants and total functions only; standard library only, since the node agent and the proxy import it.
"""

from hashlib import sha256
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, Literal

GROUP: Final = "sluice.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

POOLS: Final = "egresspools"
POLICIES: Final = "egresspolicies"
EGRESS_IPS: Final = "egressips"
EGRESS_NODES: Final = "egressnodes"

LABEL_POOL: Final = f"{GROUP}/pool"
LABEL_POLICY_NAMESPACE: Final = f"{GROUP}/policy-namespace"
LABEL_POLICY_NAME: Final = f"{GROUP}/policy-name"
LABEL_APP: Final = "app.kubernetes.io/name"
GATEWAY_APP: Final = "sluice-gateway"
AGENT_APP: Final = "sluice-agent"
"""The DaemonSet of the agents, too."""
RESERVED_PREFIX: Final = "sluice-"
"""A pool's Service is named as the pool: this keeps it from the Services that the chart makes, now and later."""
ANNOTATION_REMOVE: Final = f"{GROUP}/remove"
CONFIRM_UNINSTALL: Final = f"{GROUP}/confirm-uninstall"
"""Label or annotation of Sluice's namespace; "true": the uninstall Job may act, whoever made it."""
FINALIZER_IN_USE: Final = f"{GROUP}/in-use"

FIELD_MANAGER_OPERATOR: Final = "sluice-operator"
FIELD_MANAGER_AGENT: Final = "sluice-agent"

POLICY_ID_MIN: Final = 1
POLICY_ID_MAX: Final = 16383
"""Fourteen bits: the next two are kube-proxy's packet marks (0x4000, 0x8000), and the id travels as a packet mark."""

OVERRIDDEN_BY_MAX: Final = 8
"""Policies that a node names as those which take precedence over one of its policies."""

TUNNEL_DEVICE: Final = "sluice0"
TUNNEL_PORT: Final = 4797
PROBE_PORT: Final = 3785
"""The port of BFD echo packets (RFC 5881, section 4), which an unaffiliated echo (RFC 9747) uses too."""

_NAME_MAX: Final = 253

AGENT_SOCKET: Final = "/run/sluice/agent.sock"
PROXY_UID: Final = 6128
CHECK_UID: Final = 6127
"""The pod of `helm test`, which asks the agent of its node with what address its own connections left."""

PROXY_SOURCES_V4: Final = IPv4Network("240.0.0.0/18")
"""Class E (RFC 1112, section 4): never routed, so a packet that escaped with it would go nowhere."""
PROXY_SOURCES_V6: Final = IPv6Network("100:0:0:1::/64")
"""The dummy IPv6 prefix (RFC 9780): never routed."""


def agent_lease(node: str) -> str:
    """The name of the Lease that the agent of a node renews: a DNS subdomain (RFC 1123) as a Node's name is, and unique
    although neither may have more than 253 characters."""
    name = f"{AGENT_APP}-{node}"
    return name if len(name) <= _NAME_MAX else f"{AGENT_APP}.{sha256(node.encode()).hexdigest()}"


def proxy_source(policy_id: int, version: Literal[4, 6]) -> IPv4Address | IPv6Address:
    """The address that a gateway's proxy binds to open a connection on behalf of a policy.

    It never leaves the node: the agent installs it as local, and the kernel translates it to the policy's egress IP.

    Raises ValueError when the id is outside POLICY_ID_MIN..POLICY_ID_MAX.
    """
    if not POLICY_ID_MIN <= policy_id <= POLICY_ID_MAX:
        raise ValueError(f"policy id {policy_id} is not within {POLICY_ID_MIN}..{POLICY_ID_MAX}")
    return PROXY_SOURCES_V4[policy_id] if version == 4 else PROXY_SOURCES_V6[policy_id]
