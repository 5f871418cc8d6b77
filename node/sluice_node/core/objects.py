"""What the agent keeps of the objects it watches: small immutable projections, and the documents they are read from.

Invariants:
- Strict: a document that is not what its kind promises raises MalformedError and changes nothing.
- Small: nothing is kept that no decision reads, so memory follows the number of objects, not their size.
- Pure: no I/O, no clock.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import summarize_address_range
from sys import intern
from typing import Final, Literal

from sluice_api.addresses import AddressError, PoolAddresses, parse_entry
from sluice_api.names import (
    ANNOTATION_REMOVE,
    GATEWAY_APP,
    LABEL_APP,
    LABEL_POOL,
    POLICY_ID_MAX,
    POLICY_ID_MIN,
)
from sluice_api.occupied import Occupant
from sluice_api.slices import parse as parse_slice
from sluice_node.core import objects_fields as read
from sluice_node.core.desired import Address, Destination, Network, PortRange, SliceOwner
from sluice_node.core.objects_fields import Document, MalformedError

_PORT_MAX: Final = 65535
_INT64: Final = 2**63 - 1
_INTERFACE: Final = re.compile(r"[^/\s\"\\{}*]{1,15}")
"""IFNAMSIZ less one (netdevice(7)), and nothing that nft would read as syntax."""
_UNICAST_MAC: Final = re.compile(r"[0-9a-f][02468ace](:[0-9a-f]{2}){5}")


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Namespace ("" for cluster-wide kinds) and name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


@dataclass(frozen=True, slots=True)
class Requirement:
    """One of a selector's matchExpressions."""

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Selector:
    """A label selector; an empty one selects everything."""

    labels: tuple[tuple[str, str], ...] = ()
    requirements: tuple[Requirement, ...] = ()


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of this node. `created` orders by age (RFC 3339, UTC). `gateway_for` is the pool it is a gateway pod of."""

    key: Key
    created: str
    labels: Mapping[str, str]
    service_account: str
    addresses: tuple[Address, ...]
    host_network: bool = False
    finished: bool = False
    terminating: bool = False
    ready: bool = False
    gateway_for: str | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """An EgressPolicy. `policy_id` None and `addresses` empty while the operator has assigned nothing."""

    key: Key
    generation: int
    created: str
    pool: str
    selector: Selector
    service_accounts: frozenset[str] = frozenset()
    destinations: tuple[Destination, ...] | None = None
    otherwise: Literal["NodeAddress", "Drop"] = "NodeAddress"
    priority: int = 0
    policy_id: int | None = None
    addresses: tuple[Address, ...] = ()
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Pool:
    """An EgressPool. `proxy_port` is the proxy's port on gateway nodes, None without a proxy; `ranges` are what its
    addresses are in, those that spec.exclude takes out included; `addresses` are exactly those that it may give, None
    when they cannot be read; `last_ipv4` and `last_ipv6` are where the search for the next one stands."""

    key: Key
    slice_size: int
    announces: bool
    interface: str | None = None
    proxy_port: int | None = None
    ranges: tuple[Network, ...] = ()
    addresses: PoolAddresses | None = None
    last_ipv4: Address | None = None
    last_ipv6: Address | None = None
    generation: int = 1


@dataclass(frozen=True, slots=True)
class EgressIP:
    """A claimed egress IP, whose it is, and which node may use which of its ports.

    `resting`: its policy let go of it; the claim only keeps the address from others, and nobody uses it.
    """

    key: Key
    address: Address
    pool: str
    policy: Key
    holder: str | None = None
    slices: tuple[SliceOwner, ...] = ()
    resting: bool = False


@dataclass(frozen=True, slots=True)
class TunnelEnd:
    """Where a node's VXLAN packets come from and go to, and its tunnel device's MAC."""

    address: Address
    mac: str


@dataclass(frozen=True, slots=True)
class EgressNode:
    """What a node's agent last said of it. `tunnel` is None before its first report; `generation` is the object's;
    `listed` are the policies that it lists, kept of this agent's own node only."""

    key: Key
    addresses: tuple[Address, ...] = ()
    pod_cidrs: tuple[Network, ...] = ()
    tunnel: TunnelEnd | None = None
    gateway_for: frozenset[str] = frozenset()
    revision: int = 0
    remove: bool = False
    generation: int = 1
    listed: frozenset[Key] = frozenset()


@dataclass(frozen=True, slots=True)
class ServiceCIDR:
    """The ranges that Services take their addresses from."""

    key: Key
    cidrs: tuple[Network, ...]


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The addresses behind a Service, of one EndpointSlice."""

    key: Key
    addresses: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """This agent's own node. `addresses` are the InternalIPs, the one that kubelet names first in front."""

    name: str
    uid: str
    addresses: tuple[Address, ...]
    pod_cidrs: tuple[Network, ...]


def key_of(document: Document) -> Key:
    """The object's namespace and name."""
    metadata = read.mapping(document.get("metadata"), "metadata")
    return Key(
        read.text(metadata.get("namespace", ""), "metadata.namespace"),
        read.name(metadata.get("name"), "metadata.name"),
    )


def pod(document: Document) -> Pod:
    """A Pod. Raises MalformedError."""
    metadata = read.mapping(document.get("metadata"), "metadata")
    spec = read.mapping(document.get("spec"), "spec")
    status = read.mapping(document.get("status"), "status")
    labels = dict(read.texts(metadata.get("labels"), "metadata.labels"))
    addresses = read.items(status.get("podIPs"), "status.podIPs", _pod_ip)
    conditions = read.items(status.get("conditions"), "status.conditions", read.mapping)
    return Pod(
        key=key_of(document),
        created=read.text(metadata.get("creationTimestamp", ""), "metadata.creationTimestamp"),
        labels=labels,
        service_account=read.text(spec.get("serviceAccountName", "default"), "spec.serviceAccountName"),
        addresses=addresses,
        host_network=read.flag(spec.get("hostNetwork"), "spec.hostNetwork"),
        finished=status.get("phase") in ("Succeeded", "Failed"),
        terminating="deletionTimestamp" in metadata,
        ready=any(entry.get("type") == "Ready" and entry.get("status") == "True" for entry in conditions),
        gateway_for=labels.get(LABEL_POOL) if labels.get(LABEL_APP) == GATEWAY_APP else None,
    )


def policy(document: Document) -> Policy:
    """An EgressPolicy. Raises MalformedError."""
    metadata = read.mapping(document.get("metadata"), "metadata")
    spec = read.mapping(document.get("spec"), "spec")
    status = read.mapping(document.get("status"), "status")
    destinations, policy_id = spec.get("destinations"), status.get("id")
    return Policy(
        key=key_of(document),
        generation=read.number(metadata.get("generation", 0), "metadata.generation", low=0, high=_INT64),
        created=read.text(metadata.get("creationTimestamp", ""), "metadata.creationTimestamp"),
        pool=read.name(spec.get("pool"), "spec.pool"),
        selector=selector(spec.get("podSelector"), "spec.podSelector"),
        service_accounts=frozenset(read.items(spec.get("serviceAccounts"), "spec.serviceAccounts", read.name)),
        destinations=None if destinations is None else read.items(destinations, "spec.destinations", _destination),
        otherwise=_otherwise(spec.get("otherwise", "NodeAddress")),
        priority=read.number(spec.get("priority", 0), "spec.priority", low=-_INT64, high=_INT64),
        policy_id=None
        if policy_id is None
        else read.number(policy_id, "status.id", low=POLICY_ID_MIN, high=POLICY_ID_MAX),
        addresses=read.items(status.get("addresses"), "status.addresses", read.address),
        revision=read.number(status.get("revision", 0), "status.revision", low=0, high=_INT64),
    )


def selector(value: object, path: str) -> Selector:
    """A LabelSelector (apimachinery meta/v1). Raises MalformedError, also when it is absent."""
    if value is None:
        raise MalformedError(path, "a label selector", value)
    document = read.mapping(value, path)
    return Selector(
        labels=read.texts(document.get("matchLabels"), f"{path}.matchLabels"),
        requirements=read.items(document.get("matchExpressions"), f"{path}.matchExpressions", _requirement),
    )


def pool(document: Document) -> Pool:
    """An EgressPool. Raises MalformedError."""
    metadata = read.mapping(document.get("metadata"), "metadata")
    spec = read.mapping(document.get("spec"), "spec")
    status = read.mapping(document.get("status"), "status")
    gateways = read.mapping(spec.get("gateways"), "spec.gateways")
    proxy = read.mapping(gateways.get("proxy"), "spec.gateways.proxy")
    announcement = read.mapping(spec.get("announcement"), "spec.announcement")
    mode, interface, port = announcement.get("mode", "L2"), announcement.get("interface"), status.get("proxyPort")
    if mode not in ("L2", "None"):
        raise MalformedError("spec.announcement.mode", "L2 or None", mode)
    if interface is not None and (not isinstance(interface, str) or not _INTERFACE.fullmatch(interface)):
        raise MalformedError("spec.announcement.interface", "an interface's name", interface)
    size = read.number(spec.get("portsPerSlice", 1024), "spec.portsPerSlice", low=1, high=_PORT_MAX)
    enabled = read.flag(proxy.get("enabled", True), "spec.gateways.proxy.enabled")
    return Pool(
        key=key_of(document),
        slice_size=size,
        announces=mode == "L2",
        interface=interface,
        proxy_port=read.number(port, "status.proxyPort", low=1, high=_PORT_MAX) if enabled and port else None,
        ranges=tuple(n for entry in read.items(spec.get("addresses"), "spec.addresses", _range) for n in entry),
        addresses=_pool_addresses(spec),
        last_ipv4=_last_assigned(status, "ipv4"),
        last_ipv6=_last_assigned(status, "ipv6"),
        generation=read.number(metadata.get("generation", 1), "metadata.generation", low=0, high=_INT64),
    )


def _last_assigned(status: Document, family: str) -> Address | None:
    count = read.mapping(status.get(family), f"status.{family}")
    last = count.get("lastAssigned")
    return None if last is None else read.address(last, f"status.{family}.lastAssigned")


def egress_ip(document: Document) -> EgressIP:
    """An EgressIP. Raises MalformedError."""
    spec = read.mapping(document.get("spec"), "spec")
    status = read.mapping(document.get("status"), "status")
    owner = read.mapping(spec.get("policy"), "spec.policy")
    address, holder = read.address(spec.get("address"), "spec.address"), status.get("holder")

    def one_slice(value: object, path: str) -> SliceOwner:
        entry = read.mapping(value, path)
        ports = read.text(entry.get("ports"), f"{path}.ports")
        try:
            piece = parse_slice(ports)
        except ValueError as error:
            raise MalformedError(f"{path}.ports", str(error), ports) from None
        # One text for each node, not for each slice: there are nodes times egress IPs of them.
        return SliceOwner(address, piece.first, piece.size, intern(read.name(entry.get("node"), f"{path}.node")))

    return EgressIP(
        key=key_of(document),
        address=address,
        pool=read.name(spec.get("pool"), "spec.pool"),
        policy=Key(
            read.name(owner.get("namespace"), "spec.policy.namespace"), read.name(owner.get("name"), "spec.policy.name")
        ),
        holder=None if holder in (None, "") else read.text(holder, "status.holder"),
        slices=read.items(status.get("slices"), "status.slices", one_slice),
        resting=bool(status.get("restingSince")),
    )


def egress_node(document: Document, *, own: str = "") -> EgressNode:
    """An EgressNode; `own` is the name of this agent's node. Raises MalformedError."""
    metadata = read.mapping(document.get("metadata"), "metadata")
    status = read.mapping(document.get("status"), "status")
    annotations = read.mapping(metadata.get("annotations"), "metadata.annotations")
    tunnel, key = status.get("tunnel"), key_of(document)
    policies = status.get("policies") if key.name == own else ()
    return EgressNode(
        key=key,
        addresses=read.items(status.get("addresses"), "status.addresses", read.address),
        pod_cidrs=read.items(status.get("podCIDRs"), "status.podCIDRs", read.network),
        tunnel=None if not tunnel else _tunnel(tunnel, "status.tunnel"),
        gateway_for=frozenset(read.items(status.get("gatewayFor"), "status.gatewayFor", read.name)),
        revision=read.number(status.get("revision", 0), "status.revision", low=0, high=_INT64),
        remove=annotations.get(ANNOTATION_REMOVE) == "true",
        generation=read.number(metadata.get("generation", 1), "metadata.generation", low=0, high=_INT64),
        listed=frozenset(read.items(policies, "status.policies", _policy_key)) if policies else frozenset(),
    )


def heard(document: Document) -> tuple[tuple[Address, str, str], ...]:
    """Of an EgressNode's status.occupied what its agent heard on links: (address, MAC, interface). Raises
    MalformedError."""
    status = read.mapping(document.get("status"), "status")
    found = []
    for entry in read.items(status.get("occupied"), "status.occupied", read.mapping):
        match read.text(entry.get("by"), "status.occupied[].by").split(" "):
            case [Occupant.NEIGHBOUR, mac, "on", interface]:
                found.append((read.address(entry.get("address"), "status.occupied[].address"), mac, interface))
    return tuple(found)


def service_cidr(document: Document) -> ServiceCIDR:
    """A ServiceCIDR (networking.k8s.io/v1). Raises MalformedError."""
    spec = read.mapping(document.get("spec"), "spec")
    return ServiceCIDR(key_of(document), read.items(spec.get("cidrs"), "spec.cidrs", read.network))


def endpoints(document: Document) -> Endpoints:
    """An EndpointSlice (discovery.k8s.io/v1) of addresses, not of names. Raises MalformedError."""
    found: list[Address] = []
    for entry in read.items(document.get("endpoints"), "endpoints", read.mapping):
        found.extend(read.items(entry.get("addresses"), "endpoints[].addresses", read.address))
    return Endpoints(key_of(document), tuple(found))


def node(document: Document) -> Node:
    """A Node. Raises MalformedError."""
    metadata = read.mapping(document.get("metadata"), "metadata")
    spec = read.mapping(document.get("spec"), "spec")
    status = read.mapping(document.get("status"), "status")
    entries = read.items(status.get("addresses"), "status.addresses", read.mapping)
    internal = [entry.get("address") for entry in entries if entry.get("type") == "InternalIP"]
    cidrs = spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else [])
    return Node(
        name=read.name(metadata.get("name"), "metadata.name"),
        uid=read.name(metadata.get("uid"), "metadata.uid"),
        addresses=tuple(read.address(entry, "status.addresses") for entry in internal),
        pod_cidrs=read.items(cidrs, "spec.podCIDRs", read.network),
    )


def _range(value: object, path: str) -> tuple[Network, ...]:
    text = read.text(value, path)
    try:
        entry = parse_entry(text, literal=True)
    except AddressError:
        return ()  # the operator says what is wrong with it, and gives no address of it to anybody
    return tuple(summarize_address_range(entry.first, entry.last))


def _pool_addresses(spec: Document) -> PoolAddresses | None:
    """What a pool may give; that it cannot be read the operator says, and nothing is given from it."""
    try:
        return PoolAddresses.parse(
            read.items(spec.get("addresses"), "spec.addresses", read.text),
            read.items(spec.get("exclude"), "spec.exclude", read.text),
        )
    except AddressError:
        return None


def _pod_ip(value: object, path: str) -> Address:
    return read.address(read.mapping(value, path).get("ip"), f"{path}.ip")


def _tunnel(value: object, path: str) -> TunnelEnd:
    tunnel = read.mapping(value, path)
    mac = tunnel.get("mac")
    if not isinstance(mac, str) or not _UNICAST_MAC.fullmatch(mac):
        raise MalformedError(f"{path}.mac", "a unicast MAC address", mac)
    return TunnelEnd(read.address(tunnel.get("address"), f"{path}.address"), mac)


def _policy_key(value: object, path: str) -> Key:
    entry = read.mapping(value, path)
    return Key(read.name(entry.get("namespace"), f"{path}.namespace"), read.name(entry.get("name"), f"{path}.name"))


def _requirement(value: object, path: str) -> Requirement:
    entry = read.mapping(value, path)
    operator = entry.get("operator")
    values = frozenset(read.items(entry.get("values"), f"{path}.values", read.text))
    match operator:
        case "In" | "NotIn":
            if not values:
                raise MalformedError(f"{path}.values", f"at least one value with {operator}", entry.get("values"))
        case "Exists" | "DoesNotExist":
            if values:
                raise MalformedError(f"{path}.values", f"no values with {operator}", entry.get("values"))
        case _:
            raise MalformedError(f"{path}.operator", "In, NotIn, Exists or DoesNotExist", operator)
    return Requirement(read.name(entry.get("key"), f"{path}.key"), operator, values)


def _destination(value: object, path: str) -> Destination:
    entry = read.mapping(value, path)
    cidrs = read.items(entry.get("cidrs"), f"{path}.cidrs", read.network)
    if not cidrs:
        raise MalformedError(f"{path}.cidrs", "at least one CIDR", entry.get("cidrs"))
    return Destination(
        cidrs=cidrs,
        excluded=read.items(entry.get("except"), f"{path}.except", read.network),
        ports=read.items(entry.get("ports"), f"{path}.ports", _ports),
    )


def _ports(value: object, path: str) -> PortRange:
    entry = read.mapping(value, path)
    protocol = entry.get("protocol", "TCP")
    if protocol not in ("TCP", "UDP"):
        raise MalformedError(f"{path}.protocol", "TCP or UDP", protocol)
    first = read.number(entry.get("port"), f"{path}.port", low=1, high=_PORT_MAX)
    last = read.number(entry.get("endPort") or first, f"{path}.endPort", low=first, high=_PORT_MAX)
    return PortRange(protocol, first, last)


def _otherwise(value: object) -> Literal["NodeAddress", "Drop"]:
    if value == "NodeAddress":
        return "NodeAddress"
    if value == "Drop":
        return "Drop"
    raise MalformedError("spec.otherwise", "NodeAddress or Drop", value)
