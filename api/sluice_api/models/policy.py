"""EgressPolicy: whose traffic leaves with an egress IP, and to where."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from sluice_api.models.common import Condition, Model, Selector, conditions, counter, rule, rules
from sluice_api.names import POLICY_ID_MAX
from sluice_api.reasons import ConditionType

Cidr = Annotated[
    str,
    Field(
        min_length=3,
        max_length=43,
        json_schema_extra=rules(
            rule("isCIDR(self)", "not a CIDR: write 203.0.113.0/24, or 203.0.113.7/32 for a single address"),
            rule(
                "!isCIDR(self) || cidr(self) == cidr(self).masked()",
                "the CIDR has host bits set: write its network address",
            ),
        ),
    ),
]


class DestinationPort(Model):
    """A port or a range of ports of one protocol."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule("!has(self.endPort) || self.endPort >= self.port", "endPort is below port: swap them", path=".endPort")
        )
    )

    protocol: Literal["TCP", "UDP"] = Field(default="TCP", description="TCP or UDP.")
    port: int = Field(
        ge=1, le=65535, description="The port, or the first of a range.", json_schema_extra={"format": "int32"}
    )
    end_port: int | None = Field(
        default=None,
        alias="endPort",
        ge=1,
        le=65535,
        description="The last port of a range.",
        json_schema_extra={"format": "int32"},
    )


class Destination(Model):
    """Where traffic goes: into a CIDR, out of every exception, and to one of the ports if any are given."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.except) || !self.cidrs.all(c, isCIDR(c)) || "
                "self.except.all(e, !isCIDR(e) || self.cidrs.exists(c, cidr(c).containsCIDR(e)))",
                "an exception lies outside of every CIDR of its destination: remove it or correct it",
                path=".except",
            )
        )
    )

    cidrs: list[Cidr] = Field(min_length=1, max_length=64, description="Networks that the destination address is in.")
    except_: list[Cidr] | None = Field(
        default=None, alias="except", max_length=48, description="Networks within the CIDRs that do not count."
    )
    ports: list[DestinationPort] | None = Field(
        default=None, max_length=16, description="Ports; absent: every port and protocol."
    )


class Addresses(Model):
    """Which egress IPs the policy gets."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.families) || !has(self.requested) || self.requested.all(a, !isIP(a) || "
                "(ip(a).family() == 4 ? 'IPv4' : 'IPv6') in self.families)",
                "an address is requested of a family which families leaves out: add the family or remove the address",
                path=".requested",
            )
        )
    )

    families: list[Literal["IPv4", "IPv6"]] | None = Field(
        default=None,
        min_length=1,
        max_length=2,
        description="Families that the policy needs; absent: every family the pool has. Traffic of another family is "
        "dropped.",
        json_schema_extra=rules(
            rule("self.all(f, self.exists_one(o, o == f))", "a family stands twice: write each family once")
        ),
    )
    requested: list[
        Annotated[
            str,
            Field(
                min_length=2,
                max_length=45,
                json_schema_extra=rules(
                    rule("isIP(self)", "not an IP address: write a single address of the pool, like 198.51.100.21")
                ),
            ),
        ]
    ] = Field(
        default_factory=list,
        max_length=2,
        description="Exact addresses of the pool, at most one of each family; absent: the next ones in "
        "order, those that were never used before those that were.",
        json_schema_extra=rules(
            rule(
                "size(self) < 2 || !self.all(a, isIP(a)) || ip(self[0]).family() != ip(self[1]).family()",
                "two addresses of one family are requested: request at most one IPv4 and one IPv6 address",
            )
        ),
    )


class PolicySpec(Model):
    """What an EgressPolicy is to do."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "has(self.destinations) || !has(self.otherwise) || self.otherwise == 'NodeAddress'",
                "otherwise: Drop without destinations never applies: add destinations or remove otherwise",
                path=".otherwise",
            ),
        )
    )

    pool: str = Field(
        min_length=1,
        max_length=63,
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        description="Name of the EgressPool whose addresses are used.",
    )
    pod_selector: Selector = Field(
        alias="podSelector",
        description="Labels of the pods of this namespace; matchLabels: {} selects every pod of the namespace.",
    )
    service_accounts: list[Annotated[str, Field(min_length=1, max_length=253)]] = Field(
        default_factory=list,
        alias="serviceAccounts",
        max_length=64,
        description="Only pods of these ServiceAccounts; absent: any.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    destinations: list[Destination] | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        description="Only traffic to these; absent: everything outside the cluster.",
    )
    otherwise: Literal["NodeAddress", "Drop"] = Field(
        default="NodeAddress",
        description="Traffic that no destination matches: NodeAddress lets it leave as without a policy, Drop drops it",
    )
    addresses: Addresses = Field(default_factory=Addresses, description="Which egress IPs the policy gets.")
    priority: int = Field(
        default=0,
        ge=-1000,
        le=1000,
        description="Of two policies that select a pod the higher wins, then the older, then the name.",
        json_schema_extra={"format": "int32"},
    )


class NodeCount(Model):
    """Nodes that have pods of the policy."""

    concerned: int = counter("Nodes with pods of the policy, or that have not said yet.")
    programmed: int = counter("Of those, the nodes that have acknowledged this generation.")


class PolicyDisplay(Model):
    """The columns of `kubectl get` that join several values."""

    addresses: str = Field(default="", max_length=128, description="The egress IPs.")
    nodes: str = Field(default="", max_length=32, description="Programmed and concerned nodes.")
    reason: str = Field(default="", max_length=64, description="Why the policy is not ready, or is degraded.")


class PolicyStatus(Model):
    """How an EgressPolicy is."""

    observed_generation: int = counter("The generation that this status speaks of.", alias="observedGeneration")
    id: int | None = Field(
        default=None,
        ge=1,
        le=POLICY_ID_MAX,
        description="Number of the policy in packets of the tunnel.",
        json_schema_extra={"format": "int32"},
    )
    revision: int | None = Field(
        default=None,
        description="Nodes that report this revision or a later one have acted on what the policy says now.",
        json_schema_extra={"format": "int64"},
    )
    addresses: list[Annotated[str, Field(max_length=45)]] = Field(
        default_factory=list, max_length=2, description="The policy's egress IPs."
    )
    pods: int = counter("Pods that the policy selects, as the nodes report.")
    nodes: NodeCount = Field(default_factory=NodeCount, description="Nodes that have pods of the policy.")
    display: PolicyDisplay = Field(default_factory=PolicyDisplay, description="Columns of kubectl get.")
    conditions: list[Condition] = conditions(
        ConditionType.ACCEPTED,
        ConditionType.ASSIGNED,
        ConditionType.PROGRAMMED,
        ConditionType.READY,
        ConditionType.DEGRADED,
        ConditionType.STALLED,
    )
