"""The pool's policies as the node's agent hands them over: one JSON line, parsed strictly into frozen values.

Invariants: a snapshot is taken whole or not at all; what is wrong in it is named by its place; keys that this version
does not know are ignored, since a change that may not be ignored comes with another `version`.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any, Final, TypeVar

from sluice_api.names import POLICY_ID_MAX, POLICY_ID_MIN, proxy_source

from .host import Address
from .networks import Network, Networks

SNAPSHOT_VERSION: Final = 1
_PORT_MAX: Final = 65535
_T = TypeVar("_T")


class SnapshotError(ValueError):
    """The agent's line is not a snapshot; the message says where."""


@dataclass(frozen=True, slots=True)
class Destination:
    """One entry of a policy's destinations. `ports` are inclusive TCP ranges; None means every port."""

    networks: tuple[Network, ...]
    exceptions: tuple[Network, ...]
    ports: tuple[tuple[int, int], ...] | None


@dataclass(frozen=True, slots=True)
class Policy:
    """What the proxy needs of a policy.

    egress: its egress IP in each family (4, 6) it has one of; sources: the address that the proxy binds for it, in
    the same families, which the kernel translates to the egress IP. Both as text, which is what sockets and the log
    take. destinations: None means everything outside the cluster.
    """

    id: int
    label: str
    egress: Mapping[int, str]
    sources: Mapping[int, str]
    destinations: tuple[Destination, ...] | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything the agent said: policies by id, and the networks of the cluster and its nodes, which are never
    dialled."""

    pool: str
    policies: Mapping[int, Policy]
    denied: Networks


def parse_snapshot(line: bytes, pool: str) -> Snapshot:
    """The snapshot in one line from the agent. Raises SnapshotError."""
    try:
        data = json.loads(line)
    except ValueError as error:
        raise SnapshotError(f"not JSON: {error}") from None
    root = _mapping(data, "snapshot")
    if root.get("version") != SNAPSHOT_VERSION:
        raise SnapshotError(f"version is {root.get('version')!r}, this proxy speaks {SNAPSHOT_VERSION}")
    if root.get("pool") != pool:
        raise SnapshotError(f"pool is {root.get('pool')!r}, this proxy serves {pool!r}")
    policies: dict[int, Policy] = {}
    for policy in _items(root, "policies", _policy):
        if policies.setdefault(policy.id, policy) is not policy:
            raise SnapshotError(f"policies: id {policy.id} stands twice")
    return Snapshot(pool, policies, Networks((network, str(network)) for network in _items(root, "denied", _network)))


def _policy(data: Any, where: str) -> Policy:
    root = _mapping(data, where)
    policy_id = _integer(root.get("id"), POLICY_ID_MIN, POLICY_ID_MAX, f"{where}.id")
    for source in _items(root, "sources", _address, where):
        # The kernel translates exactly this address to the policy's egress IP: another one would leave as someone
        # else, or not at all.
        if source != proxy_source(policy_id, source.version):
            raise SnapshotError(f"{where}.sources: {source} is not the proxy's source of policy {policy_id}")
    destinations = (
        None if root.get("destinations") is None else tuple(_items(root, "destinations", _destination, where))
    )
    addresses = _items(root, "addresses", _address, where)
    egress: dict[int, str] = {address.version: str(address) for address in addresses}
    own: dict[int, str] = {address.version: str(proxy_source(policy_id, address.version)) for address in addresses}
    namespace, name = _text(root.get("namespace"), f"{where}.namespace"), _text(root.get("name"), f"{where}.name")
    return Policy(
        id=policy_id,
        label=f"{namespace}/{name}",
        egress=egress,
        sources=own,
        destinations=destinations,
    )


def _destination(data: Any, where: str) -> Destination:
    root = _mapping(data, where)
    ports = None
    if root.get("ports"):
        ranges = _items(root, "ports", _ports, where)
        ports = tuple(port for port in ranges if port is not None)
    exceptions = tuple(_items(root, "except", _network, where)) if root.get("except") is not None else ()
    return Destination(tuple(_items(root, "cidrs", _network, where)), exceptions, ports)


def _ports(data: Any, where: str) -> tuple[int, int] | None:
    """A range of TCP ports; None for UDP, which this proxy does not carry."""
    root = _mapping(data, where)
    if root.get("protocol") not in ("TCP", "UDP"):
        raise SnapshotError(f"{where}.protocol: {root.get('protocol')!r} is neither TCP nor UDP")
    first = _integer(root.get("port"), 1, _PORT_MAX, f"{where}.port")
    last = first if root.get("endPort") is None else _integer(root["endPort"], first, _PORT_MAX, f"{where}.endPort")
    return (first, last) if root["protocol"] == "TCP" else None


def _items(root: Mapping[str, Any], key: str, parse: Callable[[Any, str], _T], where: str = "") -> list[_T]:
    path = f"{where}.{key}" if where else key
    entries = root.get(key)
    if not isinstance(entries, list):
        raise SnapshotError(f"{path}: not a list")
    return [parse(entry, f"{path}[{index}]") for index, entry in enumerate(entries)]


def _mapping(data: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(data, dict):
        raise SnapshotError(f"{where}: not an object")
    return data


def _text(data: Any, where: str) -> str:
    if not isinstance(data, str) or not data:
        raise SnapshotError(f"{where}: not a text")
    return data


def _integer(data: Any, low: int, high: int, where: str) -> int:
    if type(data) is not int or not low <= data <= high:
        raise SnapshotError(f"{where}: not a number within {low}..{high}")
    return data


def _address(data: Any, where: str) -> Address:
    try:
        return ip_address(_text(data, where))
    except ValueError as error:
        raise SnapshotError(f"{where}: {error}") from None


def _network(data: Any, where: str) -> Network:
    try:
        return ip_network(_text(data, where))
    except ValueError as error:
        raise SnapshotError(f"{where}: {error}") from None
