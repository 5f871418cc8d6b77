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
from urllib.parse import urlsplit

import yaml

from sluice_operator.core.snapshot import NO_ADDRESSES, Address, ClusterNode, Network, Service, Taint

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


def service(document: Document) -> Service:
    """A Service. Its cluster IPs are left out: they lie in a ServiceCIDR."""
    spec = _mapping(document.get("spec"))
    balancer = _mapping(_mapping(document.get("status")).get("loadBalancer"))
    found = Service(
        ingress=_addresses(_mapping(entry).get("ip") for entry in balancer.get("ingress") or ()),
        external=_addresses(spec.get("externalIPs") or ()),
    )
    return NO_ADDRESSES if found == NO_ADDRESSES else found


def service_cidr(document: Document) -> tuple[Network, ...]:
    """A ServiceCIDR (networking.k8s.io/v1)."""
    return _networks(_mapping(document.get("spec")).get("cidrs") or ())


def endpoints(document: Document) -> tuple[Address, ...]:
    """The addresses of an EndpointSlice (discovery.k8s.io/v1)."""
    return _addresses(
        address for entry in document.get("endpoints") or () for address in _mapping(entry).get("addresses") or ()
    )


def cluster_info(document: Document) -> tuple[Address, ...]:
    """The `server:` of the kubeconfig in ConfigMap kube-public/cluster-info, by which kubeadm's nodes find the API
    server: often a virtual IP that is on no Node. A name is not resolved: whose it is may change at any moment."""
    text = _mapping(document.get("data")).get("kubeconfig")
    try:
        kubeconfig = yaml.safe_load(text) if isinstance(text, str) else None
    except yaml.YAMLError:
        return ()
    clusters = _mapping(kubeconfig).get("clusters")
    entries = clusters if isinstance(clusters, list) else []
    return _addresses(_host(_mapping(_mapping(entry).get("cluster")).get("server")) for entry in entries)


def literal(host: str) -> tuple[Address, ...]:
    """The address that a host is, if it is one and not a name."""
    return _addresses((host,))


def _host(url: object) -> str:
    try:
        return urlsplit(str(url)).hostname or ""
    except ValueError:
        return ""


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
