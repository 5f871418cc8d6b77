"""What the operator knows of the cluster at one moment: projections, never whole objects.

Invariants:
- Every value is frozen and compares by value: two equal projections mean that nothing the operator cares about changed.
- `resource_version` takes part in writes (as a precondition) but not in comparisons: a change that leaves everything
  else alone does not trigger planning.
- No I/O, no clock: the time at which a plan is made is a field of the snapshot.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, Final, NamedTuple

from sluice_api.timers import QUARANTINE, VANISHED_NODE_REST
from sluice_operator.core.gatewaypods import DEFAULTS, GatewayPods

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Span(NamedTuple):
    """The addresses first..last of a family, as numbers: cheaper to keep and to compare than a network."""

    version: int
    first: int
    last: int


def span_of(thing: Address | Network) -> Span:
    """An address or a network as a span."""
    if isinstance(thing, IPv4Address | IPv6Address):
        return Span(thing.version, int(thing), int(thing))
    return Span(thing.version, int(thing.network_address), int(thing.broadcast_address))


class PolicyKey(NamedTuple):
    """Names an EgressPolicy."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Condition:
    """One entry of `status.conditions`; `status` is "True", "False" or "Unknown"."""

    type: str
    status: str
    reason: str
    message: str
    observed_generation: int
    last_transition_time: str


@dataclass(frozen=True, slots=True)
class Expression:
    """One `matchExpressions` entry of a label selector."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Selector:
    """A label selector; with nothing in it, it selects everything."""

    labels: tuple[tuple[str, str], ...] = ()
    expressions: tuple[Expression, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Kubernetes' rules: every entry must hold; NotIn and DoesNotExist hold when the key is absent."""
        if any(labels.get(key) != value for key, value in self.labels):
            return False
        return all(_holds(expression, labels) for expression in self.expressions)


def _holds(expression: Expression, labels: Mapping[str, str]) -> bool:
    value = labels.get(expression.key)
    match expression.operator:
        case "In":
            return value is not None and value in expression.values
        case "NotIn":
            return value is None or value not in expression.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case _:
            return False


@dataclass(frozen=True, slots=True)
class GatewaySpec:
    """`spec.gateways` of a pool; tolerations and resources go into the Deployment as they are written."""

    replicas: int = 2
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()
    resources: Mapping[str, Any] = field(default_factory=dict)
    proxy_enabled: bool = True
    proxy_port: int = 3128


@dataclass(frozen=True, slots=True)
class Reservation:
    """An address that is kept for a namespace, or, unless `policy` is empty, for one policy of it."""

    address: Address
    namespace: str
    policy: str = ""

    def admits(self, key: PolicyKey) -> bool:
        """Whether a policy may have the address."""
        return self.namespace == key.namespace and self.policy in ("", key.name)


@dataclass(frozen=True, slots=True)
class FamilyCount:
    """Addresses of one family of a pool."""

    total: int = 0
    assigned: int = 0
    free: int = 0
    resting: int = 0
    reserved: int = 0
    last_assigned: Address | None = None
    """Where the search for the next address goes on (see `sluice_api.candidates`)."""


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """`status` of an EgressPool, as observed or as desired."""

    observed_generation: int = 0
    ipv4: FamilyCount = FamilyCount()
    ipv6: FamilyCount = FamilyCount()
    gateways_desired: int = 0
    gateways_ready: int = 0
    gateway_nodes: tuple[str, ...] = ()
    policies: int = 0
    namespaces: str = ""
    proxy: str = ""
    proxy_port: int | None = None
    conditions: tuple[Condition, ...] = ()

    def family(self, version: int) -> FamilyCount:
        """The count of a family."""
        return self.ipv4 if version == 4 else self.ipv6


@dataclass(frozen=True, slots=True)
class Pool:
    """An EgressPool. `quarantine` is how many seconds its addresses rest.

    `problems` are faults of its spec found while reading it, in words, but for those of its addresses.
    """

    name: str
    uid: str
    generation: int
    created: str
    addresses: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    namespaces: Selector | None = None
    gateways: GatewaySpec = GatewaySpec()
    announces: bool = True
    ports_per_slice: int = 1024
    quarantine: int = int(QUARANTINE)
    reservations: tuple[Reservation, ...] = ()
    quota: int | None = None
    problems: tuple[str, ...] = ()
    deleting: bool = False
    finalizers: tuple[str, ...] = ()
    status: PoolStatus = PoolStatus()
    resource_version: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class PolicyStatus:
    """`status` of an EgressPolicy, as observed or as desired. Addresses are in order: IPv4 first."""

    observed_generation: int = 0
    id: int | None = None
    revision: int = 0
    addresses: tuple[Address, ...] = ()
    pods: int = 0
    nodes_concerned: int = 0
    nodes_programmed: int = 0
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """An EgressPolicy. `families` is None when the policy takes every family its pool has.

    `problems` are faults of its spec found while reading it, in words; a policy with one is not accepted.
    `destinations` are the CIDRs of spec.destinations, empty when it has none.
    """

    key: PolicyKey
    uid: str
    generation: int
    created: str
    pool: str
    families: frozenset[int] | None = None
    requested: tuple[Address, ...] = ()
    destinations: tuple[Span, ...] = ()
    problems: tuple[str, ...] = ()
    status: PolicyStatus = PolicyStatus()
    resource_version: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace's labels, which a pool's selector is matched against."""

    name: str
    labels: Mapping[str, str]


class Slice(NamedTuple):
    """Ports first..last of an egress IP, which `node` alone may use. A tuple: there is one a node and egress IP.

    `vanished`: since when there is no such node (RFC 3339), empty while there is.
    """

    node: str
    first: int
    last: int
    vanished: str = ""


@dataclass(frozen=True, slots=True)
class EgressIP:
    """A claim: while this object exists its address belongs to `policy` and to nobody else.

    `claimed` and `resting_since` are RFC 3339; a claim that rests (see `rest`) is used by nobody. `holder` is the
    gateway node that says it answers for the address, empty when none has.
    """

    name: str
    uid: str
    address: Address
    pool: str
    policy: PolicyKey
    slices: tuple[Slice, ...] = ()
    nodes: int = 0
    claimed: str = ""
    resting_since: str = ""
    holder: str = ""
    generation: int = 1
    conditions: tuple[Condition, ...] = ()
    deleting: bool = False
    resource_version: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class NodePolicy:
    """What one node's agent says of one policy that selects pods there."""

    key: PolicyKey
    generation: int
    pods: int
    overridden: int = 0
    overridden_by: tuple[str, ...] = ()


class NodeTrouble(NamedTuple):
    """Something that a node could not do, and whom it concerns as far as that is known."""

    pool: str
    policy: PolicyKey | None
    address: str
    message: str


@dataclass(frozen=True, slots=True)
class EgressNode:
    """An agent's report. `removing`: it was asked to take everything out, so it programs nothing.

    `gateways_alive` is what this node's probes say of gateway nodes (True: answers). `occupied` are addresses of pools
    that it sees in use, and by what; `surveyed` is the digest of the pools that it went by.
    """

    name: str
    revision: int
    gateway_for: frozenset[str] = frozenset()
    policies: tuple[NodePolicy, ...] = ()
    gateways_alive: tuple[tuple[str, bool], ...] = ()
    occupied: tuple[tuple[Address, str], ...] = ()
    surveyed: str = ""
    trouble: str = ""
    """Why nothing could be programmed at all."""
    troubles: tuple[NodeTrouble, ...] = ()
    """What could not be done while everything else was."""
    removing: bool = False


class Taint(NamedTuple):
    """A taint of a Node."""

    key: str
    value: str
    effect: str


@dataclass(frozen=True, slots=True)
class ClusterNode:
    """A Node of the cluster, whether or not an agent runs there; heartbeats and the like are left out.

    `ready` is its condition Ready; `addresses` are all that its status names, IPv4 and IPv6, internal and external.
    """

    name: str
    uid: str
    addresses: tuple[Address, ...] = ()
    pod_cidrs: tuple[Network, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    unschedulable: bool = False
    ready: bool = True


class Service(NamedTuple):
    """What a Service has outside the cluster's own ranges: `ingress` by status.loadBalancer, `external` by
    spec.externalIPs. Most have nothing, and share NO_ADDRESSES."""

    ingress: tuple[Address, ...] = ()
    external: tuple[Address, ...] = ()


NO_ADDRESSES: Final = Service()


@dataclass(frozen=True, slots=True)
class GatewayObject:
    """A live Deployment, Service or PodDisruptionBudget of a pool; `document` holds metadata and spec.

    `complaint` is why a Deployment does not get its pods, in the words of its own status; mostly empty.
    """

    kind: str
    name: str
    pool: str
    document: Mapping[str, Any]
    deleting: bool = False
    complaint: str = ""


@dataclass(frozen=True, slots=True)
class Rejection:
    """The API server refused a gateway object: the document of this `digest`, for the reason that it `said`.

    `due`: it is time to ask again.
    """

    digest: str
    said: str
    due: bool = False


@dataclass(frozen=True, slots=True)
class IdCounter:
    """The last policy id handed out, and the version of the ConfigMap that says so (None: it does not exist)."""

    last: int = 0
    resource_version: str | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """What the deployment of the operator decides. `vanished_node_rest` is in seconds (see `vanished`)."""

    namespace: str
    gateway_image: str
    gateway_pods: GatewayPods = DEFAULTS
    api_server_host: str = ""
    """Where this process finds the API server."""
    vanished_node_rest: int = int(VANISHED_NODE_REST)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything a plan is made from. `now` is RFC 3339 in UTC: a transition time, and what rests are measured by.

    `nodes` are the reports of agents, `cluster_nodes` the Nodes of the cluster; either may lack what the other has.
    `silent` are the Nodes that ought to have an agent that gives signs of life, and have none; `unheard` those of which
    that is not known yet.
    `services` go by namespace and name, the addresses of the API server by what says that they are its. `overdue` are
    the pools for which the nodes have had their time to look (see `survey`).
    `answers` are what the API server made of the gateway objects that this operator applied last.
    """

    now: str
    settings: Settings
    pools: Mapping[str, Pool] = field(default_factory=dict)
    policies: Mapping[PolicyKey, Policy] = field(default_factory=dict)
    namespaces: Mapping[str, Namespace] = field(default_factory=dict)
    egress_ips: Mapping[str, EgressIP] = field(default_factory=dict)
    nodes: Mapping[str, EgressNode] = field(default_factory=dict)
    cluster_nodes: Mapping[str, ClusterNode] = field(default_factory=dict)
    silent: frozenset[str] = frozenset()
    unheard: frozenset[str] = frozenset()
    services: Mapping[tuple[str, str], Service] = field(default_factory=dict)
    service_cidrs: Mapping[str, tuple[Network, ...]] = field(default_factory=dict)
    api_server: Mapping[str, tuple[Address, ...]] = field(default_factory=dict)
    overdue: frozenset[str] = frozenset()
    gateway_objects: Mapping[tuple[str, str], GatewayObject] = field(default_factory=dict)
    answers: Mapping[tuple[str, str], GatewayObject] = field(default_factory=dict)
    rejections: Mapping[tuple[str, str], Rejection] = field(default_factory=dict)
    ids: IdCounter = IdCounter()
