"""The four kinds of sluice.dev as pydantic models: the only source of crds/ and of docs/api.md.

Not for the node agent and the proxy, which must stay small: they read what they need from plain documents.
"""

from dataclasses import dataclass

from sluice_api import names
from sluice_api.models.common import Model, rule
from sluice_api.models.egressip import EgressIPSpec, EgressIPStatus
from sluice_api.models.egressnode import EgressNodeSpec, EgressNodeStatus
from sluice_api.models.policy import PolicySpec, PolicyStatus
from sluice_api.models.pool import PoolSpec, PoolStatus


@dataclass(frozen=True, slots=True)
class Column:
    """A column of `kubectl get`; a wide one is shown with `-o wide` only."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind: its models, and how it is found and shown."""

    name: str
    plural: str
    short: str
    namespaced: bool
    description: str
    spec: type[Model]
    status: type[Model]
    columns: tuple[Column, ...]
    selectable: tuple[str, ...] = ()
    spec_required: bool = True
    rules: tuple[dict[str, str], ...] = ()
    """CEL rules about the object's name."""


_READY = ".status.conditions[?(@.type=='Ready')].status"
_PROGRAMMED = ".status.conditions[?(@.type=='Programmed')].status"
_TROUBLE = ".status.conditions[?(@.status!='True')].reason"
_AGE = Column("Age", ".metadata.creationTimestamp", "date")

KINDS = (
    Kind(
        "EgressPool",
        names.POOLS,
        "epool",  # not ep: that is Endpoints, and kubectl would take it for those
        namespaced=False,
        description="Addresses that pods may leave the cluster with, and the gateways that carry their traffic.",
        spec=PoolSpec,
        status=PoolStatus,
        columns=(
            Column("Ready", _READY),
            Column("Gateways", ".status.display.gateways"),
            Column("IPv4", ".status.display.ipv4"),
            Column("IPv6", ".status.display.ipv6"),
            Column("Free", ".status.display.free"),
            Column("Namespaces", ".status.display.namespaces"),
            Column("Policies", ".status.policies", "integer"),
            Column("Reason", ".status.display.reason"),
            _AGE,
        ),
        rules=(
            rule(
                "self.metadata.name.matches('^[a-z]([-a-z0-9]{0,53}[a-z0-9])?$')",
                "the name also names a Service and, with -gateway, a Deployment: use at most 55 lower-case letters, "
                "digits and '-', beginning with a letter",
                path=".metadata.name",
            ),
            rule(
                f"!self.metadata.name.startsWith('{names.RESERVED_PREFIX}')",
                f"names that begin with {names.RESERVED_PREFIX} are those of Sluice's own Services: choose another",
                path=".metadata.name",
            ),
        ),
    ),
    Kind(
        "EgressPolicy",
        names.POLICIES,
        "epol",
        namespaced=True,
        description="Which pods of the namespace leave the cluster with an egress IP of a pool, and for which "
        "destinations.",
        spec=PolicySpec,
        status=PolicyStatus,
        columns=(
            Column("Pool", ".spec.pool"),
            Column("Addresses", ".status.display.addresses"),
            Column("Pods", ".status.pods", "integer"),
            Column("Nodes", ".status.display.nodes"),
            Column("Ready", _READY),
            Column("Reason", ".status.display.reason"),
            _AGE,
        ),
        selectable=(".spec.pool",),
    ),
    Kind(
        "EgressIP",
        names.EGRESS_IPS,
        "eip",
        namespaced=False,
        description="One egress IP: whose it is, who answers for it, and which node uses which of its ports. Made by "
        "Sluice.",
        spec=EgressIPSpec,
        status=EgressIPStatus,
        columns=(
            Column("Pool", ".spec.pool"),
            Column("Namespace", ".spec.policy.namespace"),
            Column("Policy", ".spec.policy.name"),
            Column("Holder", ".status.holder"),
            Column("Nodes", ".status.nodes", "integer"),
            Column("Ready", _READY),
            Column("Resting", ".status.restingSince", "date"),
            Column("Reason", _TROUBLE, wide=True),
            _AGE,
        ),
        selectable=(".spec.pool",),
        rules=(
            rule(
                "!isIP(self.spec.address) || (ip(self.spec.address).family() == 4 "
                "? self.metadata.name == self.spec.address "
                ": size(self.metadata.name) == 39 && isIP(self.metadata.name.replace('-', ':')) && "
                "ip(self.metadata.name.replace('-', ':')) == ip(self.spec.address))",
                "an EgressIP is named by its address (IPv6 exploded, '-' for ':'), so that nobody can claim it twice",
                path=".metadata.name",
            ),
        ),
    ),
    Kind(
        "EgressNode",
        names.EGRESS_NODES,
        "en",
        namespaced=False,
        description="What the agent of one node has programmed and sees. Written by that agent.",
        spec=EgressNodeSpec,
        status=EgressNodeStatus,
        columns=(
            Column("GatewayFor", ".status.gatewayFor"),
            Column("Programmed", _PROGRAMMED),
            Column("Reason", _TROUBLE),
            Column("Revision", ".status.revision", "integer", wide=True),
            _AGE,
        ),
        spec_required=False,
    ),
)
