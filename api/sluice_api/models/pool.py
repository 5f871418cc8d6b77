"""EgressPool: the addresses, who may use them, and the gateways that carry their traffic."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, WithJsonSchema

from sluice_api.durations import PATTERN as DURATION
from sluice_api.models.common import (
    LABEL_KEYS,
    Condition,
    Label,
    LabelKey,
    Model,
    Selector,
    conditions,
    counter,
    rule,
    rules,
)
from sluice_api.reasons import ConditionType

#: What CEL can tell about one entry: that it is an address, a range of one family, or a CIDR without host bits.
#: That a range is in order and entries do not overlap needs arithmetic, which the operator does (Accepted=False).
_ENTRY = rules(
    rule(
        "self.contains('/') ? isCIDR(self) : self.contains('-') ? self.split('-').size() == 2 && "
        "self.split('-').all(a, isIP(a)) : isIP(self)",
        "not an address, a range first-last or a CIDR: write 198.51.100.16, 198.51.100.16-198.51.100.31 or "
        "198.51.100.16/28",
    ),
    rule(
        "!self.contains('/') || !isCIDR(self) || cidr(self) == cidr(self).masked()",
        "the CIDR has host bits set: write its network address, or leave out the prefix for a single address",
    ),
    rule(
        "self.split('-').size() != 2 || !isIP(self.split('-')[0]) || !isIP(self.split('-')[1]) || "
        "ip(self.split('-')[0]).family() == ip(self.split('-')[1]).family()",
        "the range mixes IPv4 and IPv6: write a range of one family",
    ),
    # one regular expression rather than ip().isLoopback() and its kin: it costs the API server a hundredth
    rule(
        "!self.matches('(^|-)(0\\\\.|127\\\\.|169\\\\.254\\\\.|22[4-9]\\\\.|2[3-5][0-9]\\\\.|"
        "[fF][fF]|[fF][eE][89abAB]|::1?($|[/-]))')",
        "cannot be an egress IP: unspecified, loopback, link-local, multicast and reserved addresses are never routed",
    ),
    rule(
        "!self.contains('/') || !isCIDR(self) || "
        "cidr(self).prefixLength() >= (cidr(self).ip().family() == 4 ? 16 : 112)",
        "the CIDR is too large: a pool has at most 65536 addresses (IPv4 /16, IPv6 /112)",
    ),
)
Entry = Annotated[str, Field(min_length=2, max_length=79, json_schema_extra=_ENTRY)]


class Proxy(Model):
    """The HTTP proxy of the gateways."""

    enabled: bool = Field(
        default=True, description="Whether the gateways serve HTTP CONNECT and absolute-form requests."
    )
    port: int = Field(
        default=3128,
        ge=1,
        le=65535,
        description="Port of the pool's Service, as in http://<pool>.<namespace of Sluice>.svc:<port>.",
        json_schema_extra={"format": "int32"},
    )


class Toleration(Model):
    """A taint that is tolerated, as in a pod."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "has(self.operator) && self.operator == 'Exists' "
                "? !has(self.value) || self.value == '' : has(self.key)",
                "operator Exists takes no value, Equal needs a key: correct operator, key or value",
            ),
            rule(
                "!has(self.tolerationSeconds) || has(self.effect) && self.effect == 'NoExecute'",
                "tolerationSeconds goes with effect NoExecute only: correct the effect or remove tolerationSeconds",
                path=".tolerationSeconds",
            ),
        )
    )

    key: LabelKey | None = Field(
        default=None, min_length=1, description="The taint's key; absent, with operator Exists: every taint."
    )
    operator: Literal["Equal", "Exists"] | None = Field(
        default=None, description="Equal (which is meant when absent) compares the value, Exists does not."
    )
    value: Label | None = Field(default=None, description="The taint's value, for Equal.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="The taint's effect; absent: every effect."
    )
    toleration_seconds: int | None = Field(
        default=None,
        alias="tolerationSeconds",
        description="How long a NoExecute taint is tolerated; absent: for ever.",
        json_schema_extra={"format": "int64"},
    )


Quantity = Annotated[
    int | str,
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "maxLength": 64,
            "pattern": r"^([0-9]+(\.[0-9]+)?|\.[0-9]+)(([KMGTPE]i)|[numkMGTPE]|[eE][+-]?[0-9]+)?$",
        }
    ),
]
Quantities = Annotated[
    dict[str, Quantity],
    Field(
        max_length=3,
        json_schema_extra=rules(
            rule(
                "self.all(k, k in ['cpu', 'memory', 'ephemeral-storage'])",
                "a gateway's proxy has cpu, memory and ephemeral-storage only: correct the name of the resource",
            )
        ),
    ),
]


class Resources(Model):
    """Requests and limits of a container."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.requests) || !has(self.limits) || self.requests.all(k, !(k in self.limits) || "
                "!isQuantity(string(self.requests[k])) || !isQuantity(string(self.limits[k])) || "
                "quantity(string(self.requests[k])).compareTo(quantity(string(self.limits[k]))) <= 0)",
                "a request is above its limit: lower the request or raise the limit",
                path=".requests",
            )
        )
    )

    requests: Quantities | None = Field(
        default=None, description="What a gateway's proxy is sure to get: cpu, memory, ephemeral-storage."
    )
    limits: Quantities | None = Field(
        default=None, description="What a gateway's proxy may use at most: cpu, memory, ephemeral-storage."
    )


class Gateways(Model):
    """How many gateways there are and where they may run. Several are active at once."""

    replicas: int = Field(
        default=2,
        ge=1,
        le=64,
        description="Gateways of the pool, each on a node of its own. One may die without any connection being lost.",
        json_schema_extra={"format": "int32"},
    )
    node_selector: dict[LabelKey, Label] = Field(
        default_factory=dict,
        alias="nodeSelector",
        max_length=32,
        description="Labels of the nodes that may be gateways.",
        json_schema_extra=LABEL_KEYS,
    )
    tolerations: list[Toleration] = Field(
        default_factory=list, max_length=32, description="Taints that the gateways tolerate, as in a pod."
    )
    resources: Resources = Field(
        default_factory=Resources, description="Requests and limits of a gateway's proxy, as in a container."
    )
    proxy: Proxy = Field(default_factory=Proxy, description="The HTTP proxy of the gateways.")


class Announcement(Model):
    """How the network learns where an egress IP is."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.interface) || !has(self.mode) || self.mode == 'L2'",
                "interface says where L2 announces, and mode None announces nothing: remove one of them",
                path=".interface",
            )
        )
    )

    mode: Literal["L2", "None"] = Field(
        default="L2",
        description="L2: the holder answers ARP and neighbour solicitations. None: the network routes the addresses to "
        "the gateways by itself.",
    )
    interface: str | None = Field(
        default=None,
        min_length=1,
        max_length=15,
        pattern=r"^[^/\s]+$",
        description="Interface that answers; absent: the one of the node's own address.",
    )


class Reservation(Model):
    """An address that only the policies of one namespace, or one policy, may have."""

    address: str = Field(
        min_length=2,
        max_length=45,
        description="An address of the pool.",
        json_schema_extra=rules(
            rule("isIP(self)", "not an IP address: write a single address of the pool, like 198.51.100.21")
        ),
    )
    namespace: str = Field(
        min_length=1,
        max_length=63,
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        description="Namespace whose policies may have it. It need not exist yet.",
    )
    policy: str | None = Field(
        default=None,
        min_length=1,
        max_length=253,
        pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
        description="The only policy that may have it; absent: the policies of the namespace, the oldest first.",
    )


class Quota(Model):
    """How much of the pool one namespace may have. What it has already is never taken away."""

    addresses_per_namespace: int = Field(
        alias="addressesPerNamespace",
        ge=1,
        le=65536,
        description="Addresses of each family that the policies of one namespace may have, those that rest included.",
        json_schema_extra={"format": "int32"},
    )


class PoolSpec(Model):
    """What an EgressPool is to be."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "(has(self.portsPerSlice) ? self.portsPerSlice : 0) == "
                "(has(oldSelf.portsPerSlice) ? oldSelf.portsPerSlice : 0)",
                "portsPerSlice cannot be changed while nodes use their slices: make another pool",
            )
        )
    )

    addresses: list[Entry] = Field(
        min_length=1,
        max_length=64,
        description="Addresses that policies may leave with: a CIDR (without its network and broadcast address), a "
        "range first-last, or a single address; IPv4 and IPv6. Entries must not overlap.",
        json_schema_extra=rules(
            rule("self.all(e, self.exists_one(o, o == e))", "an entry stands twice: write each address once"),
            rule(
                "self.all(a, !isCIDR(a) || self.exists_one(b, "
                "isCIDR(b) && (cidr(a).containsCIDR(b) || cidr(b).containsCIDR(a))))",
                "a CIDR is within another one: write each address once",
            ),
            rule(
                "self.all(a, !isCIDR(a) || !self.exists(b, "
                "isIP(b.split('-')[0]) && cidr(a).containsIP(b.split('-')[0])))",
                "an address, or the beginning of a range, is within a CIDR: write each address once",
            ),
        ),
    )
    exclude: list[Entry] = Field(
        default_factory=list,
        max_length=64,
        description="Addresses of the above that are not to be used, in the same forms.",
    )
    namespaces: Selector | None = Field(
        default=None, description="Labels of the namespaces whose policies may use the pool; absent: every namespace."
    )
    gateways: Gateways = Field(default_factory=Gateways, description="The pool's gateways.")
    announcement: Announcement = Field(
        default_factory=Announcement, description="How the network learns where an egress IP is."
    )
    reservations: list[Reservation] = Field(
        default_factory=list,
        max_length=256,
        description="Addresses that are kept for a namespace or a policy. They are given to it before any others. A "
        "policy that has an address already keeps that one.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["address"]},
    )
    quota: Quota | None = Field(
        default=None, description="How much of the pool one namespace may have; absent: as much as there is."
    )
    quarantine: str = Field(
        default="1h",
        min_length=2,
        max_length=16,
        description="How long an address that no policy uses any more is kept for a policy of the same namespace and "
        "name, in hours, minutes and seconds like 1h30m. 0s gives it to the next policy as soon as no node uses it.",
        json_schema_extra=rules(
            rule(
                f"self.matches('{DURATION}') && duration(self) <= duration('8760h')",
                "quarantine is no length of time up to a year: write hours, minutes and seconds like 1h, 90m or 1h30m",
            )
        ),
    )
    ports_per_slice: int = Field(
        default=1024,
        alias="portsPerSlice",
        ge=128,
        le=16384,
        description="Ports of an egress IP that one node may use: a power of two from 128 to 16384. It bounds the "
        "connections of a node to one destination, and 64512 divided by it bounds the nodes. Cannot be changed.",
        json_schema_extra={
            "format": "int32",
            **rules(
                rule(
                    "self in [128, 256, 512, 1024, 2048, 4096, 8192, 16384]",
                    "portsPerSlice must be a power of two from 128 to 16384",
                )
            ),
        },
    )


class FamilyCount(Model):
    """Addresses of one family."""

    total: int = counter("Addresses of the family that the pool has.")
    assigned: int = counter("Addresses that policies have.")
    resting: int = counter("Addresses that rest after their policy let go of them.")
    reserved: int = counter("Addresses that are reserved and that nobody has yet.")
    free: int = counter("Addresses that can still be assigned to anybody.")
    last_assigned: str | None = Field(
        default=None,
        alias="lastAssigned",
        max_length=45,
        description="The next address is looked for behind this one, so that those which were used come last.",
    )


class GatewayCount(Model):
    """Gateways of the pool."""

    desired: int = counter("Gateways that there are to be.")
    ready: int = counter("Gateways that carry traffic.")
    nodes: list[Annotated[str, Field(max_length=253)]] = Field(
        default_factory=list, max_length=5000, description="Nodes that are gateways of the pool."
    )


class PoolDisplay(Model):
    """The columns of `kubectl get` that join several numbers."""

    gateways: str = Field(default="", max_length=32, description="Ready and desired gateways.")
    ipv4: str = Field(default="", max_length=32, description="Assigned and all IPv4 addresses.")
    ipv6: str = Field(default="", max_length=32, description="Assigned and all IPv6 addresses.")
    free: str = Field(default="", max_length=64, description="Room left: addresses that can still be assigned.")
    namespaces: str = Field(
        default="", max_length=256, description="Labels of the namespaces whose policies may use the pool, or all."
    )
    reason: str = Field(default="", max_length=64, description="Why the pool is not ready, or is degraded.")


class PoolStatus(Model):
    """How an EgressPool is."""

    observed_generation: int = counter("The generation that this status speaks of.", alias="observedGeneration")
    ipv4: FamilyCount = Field(default_factory=FamilyCount, description="IPv4 addresses.")
    ipv6: FamilyCount = Field(default_factory=FamilyCount, description="IPv6 addresses.")
    gateways: GatewayCount = Field(default_factory=GatewayCount, description="Gateways.")
    policies: int = counter("Policies that use the pool.")
    proxy: str | None = Field(
        default=None, max_length=512, description="URL of the proxy, for pods that policies select."
    )
    proxy_port: int | None = Field(
        default=None,
        alias="proxyPort",
        ge=1,
        le=65535,
        description="Port of the proxy on the gateway nodes themselves.",
        json_schema_extra={"format": "int32"},
    )
    display: PoolDisplay = Field(default_factory=PoolDisplay, description="Columns of kubectl get.")
    conditions: list[Condition] = conditions(
        ConditionType.ACCEPTED, ConditionType.READY, ConditionType.DEGRADED, ConditionType.STALLED
    )
