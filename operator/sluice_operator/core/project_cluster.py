"""Documents of the cluster that are not Sluice's -> projections.

Invariants:
- Total, like `project`: what cannot be read is left out, since a kubelet or another controller wrote it.
- Tiny: a Node is some kilobytes and says something new every few minutes; what is kept here is some hundred bytes, and
  equal as long as nothing that a plan depends on has changed.
- Pure: no I/O, no clock.
"""

from collections.abc import Iterable, Mapping
from ipaddress import ip_address, ip_network
from sys import intern
from typing import Any

from sluice_operator.core.snapshot import Address, ClusterNode, Network, Taint

Document = Mapping[str, Any]


def cluster_node(document: Document) -> ClusterNode:
    """A Node."""
    metadata, spec, status = (_mapping(document.get(part)) for part in ("metadata", "spec", "status"))
    return ClusterNode(
        name=metadata["name"],
        uid=str(metadata.get("uid", "")),
        addresses=_addresses(entry.get("address") for entry in status.get("addresses") or ()),
        pod_cidrs=_networks(spec.get("podCIDRs") or (spec.get("podCIDR"),)),
        labels={intern(str(key)): intern(str(value)) for key, value in _mapping(metadata.get("labels")).items()},
        taints=tuple(
            Taint(str(entry.get("key", "")), str(entry.get("value") or ""), str(entry.get("effect", "")))
            for entry in spec.get("taints") or ()
        ),
        unschedulable=spec.get("unschedulable") is True,
        ready=any(
            entry.get("type") == "Ready" and entry.get("status") == "True" for entry in status.get("conditions") or ()
        ),
    )


def _addresses(values: Iterable[object]) -> tuple[Address, ...]:
    """The addresses among `values`, in order, each once; a Node also lists its host name."""
    found: dict[Address, None] = {}
    for value in values:
        try:
            found[ip_address(str(value))] = None
        except ValueError:
            continue
    return tuple(found)


def _networks(values: Iterable[object]) -> tuple[Network, ...]:
    found: dict[Network, None] = {}
    for value in values:
        try:
            found[ip_network(str(value), strict=False)] = None
        except ValueError:
            continue
    return tuple(found)


def _mapping(value: object) -> Document:
    return value if isinstance(value, Mapping) else {}
