"""What the API server takes and what it refuses: one object a line, with the field and the words of the refusal.

`tests/unit/api/test_api_schema.py` checks that no rule and no field is without a bad case here.
"""

from dataclasses import dataclass
from typing import Any

Document = dict[str, Any]
UID = "0d7c3a52-6f0c-4a35-9b52-6d1c8f2f3c11"


@dataclass(frozen=True, slots=True)
class Good:
    """An object that is accepted."""

    kind: str
    spec: Document
    name: str = "case"


@dataclass(frozen=True, slots=True)
class Bad:
    """An object that is refused, at `field`, with `message` in the answer."""

    kind: str
    field: str
    message: str
    spec: Document
    name: str = "case"


@dataclass(frozen=True, slots=True)
class Change:
    """A merge patch of an accepted object; refused with `message`, taken when that is empty."""

    kind: str
    before: Document
    patch: Document
    message: str
    name: str = "case"


def pool(*addresses: str, **spec: Any) -> Document:
    """The spec of a pool; an address when none is given."""
    return {"addresses": list(addresses or ("198.51.100.16/28",)), **spec}


def policy(**spec: Any) -> Document:
    """The spec of a policy that is good but for what is given."""
    return {"pool": "partners", "podSelector": {"matchLabels": {"app": "billing"}}, **spec}


def to(*cidrs: str, **rest: Any) -> Document:
    """The spec of a policy with one destination."""
    return policy(destinations=[{"cidrs": list(cidrs or ("203.0.113.0/24",)), **rest}])


def allows(**expression: Any) -> Document:
    """The spec of a pool whose namespaces are selected by one expression."""
    return pool(namespaces={"matchExpressions": [expression]})


def claim(address: str = "198.51.100.21", **spec: Any) -> Document:
    """The spec of an EgressIP."""
    return {"address": address, "pool": "partners", "policy": owner(), **spec}


def owner(**changed: str) -> Document:
    """The policy that an EgressIP belongs to."""
    return {"namespace": "billing", "name": "billing", "uid": UID, **changed}


def reserved(**changed: str) -> Document:
    """A reservation of a pool."""
    return {"address": "198.51.100.21", "namespace": "billing", **changed}


def tolerates(**toleration: Any) -> Document:
    """The spec of a pool whose gateways tolerate a taint."""
    return pool(gateways={"tolerations": [toleration]})


POOL, POLICY, IP, NODE = "EgressPool", "EgressPolicy", "EgressIP", "EgressNode"
LONG = "x" * 64

GOOD = (
    Good(POOL, pool()),
    Good(POOL, pool("198.51.100.7")),
    Good(POOL, pool("198.51.100.40-198.51.100.49")),
    Good(POOL, pool("2001:db8:100::/120")),
    Good(POOL, pool("2001:db8::1-2001:db8::ff", "2001:DB8:1::/120")),
    Good(POOL, pool("10.0.0.0/16")),
    Good(POOL, pool("2001:db8::/112")),
    Good(POOL, pool("198.51.100.16/31", "198.51.100.18/32")),
    Good(POOL, pool("198.51.100.16/28", "2001:db8:100::/120", exclude=["198.51.100.20", "2001:db8:100::/126"])),
    Good(POOL, pool(*(f"198.51.{n}.0/24" for n in range(64)))),
    Good(POOL, pool(namespaces={"matchLabels": {"egress": "partners"}})),
    Good(POOL, pool(namespaces={"matchLabels": {}})),
    Good(POOL, pool(namespaces={"matchExpressions": [{"key": "team", "operator": "In", "values": ["a", "b"]}]})),
    Good(POOL, pool(gateways={"replicas": 64, "nodeSelector": {"egress": ""}, "proxy": {"enabled": False}})),
    Good(POOL, pool(gateways={"resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": 2}}})),
    Good(POOL, pool(gateways={"resources": {"requests": {"cpu": "0.5"}, "limits": {"cpu": "500m", "memory": 2**30}}})),
    Good(POOL, pool(gateways={"nodeSelector": {"node-role.kubernetes.io/egress": "", "a": "A_b.c-1"}})),
    Good(POOL, pool(namespaces={"matchLabels": {}, "matchExpressions": []})),
    Good(POOL, tolerates(operator="Exists")),
    Good(POOL, tolerates(key="egress", value="true", effect="NoExecute", tolerationSeconds=30)),
    Good(POOL, pool(announcement={"mode": "L2", "interface": "eth0.100"})),
    Good(POOL, pool(announcement={"mode": "None"})),
    *(Good(POOL, pool(portsPerSlice=size)) for size in (128, 16384)),
    Good(POOL, pool(reservations=[reserved(), reserved(address="2001:db8:100::5", policy="billing.eu")])),
    Good(POOL, pool(reservations=[reserved(address=f"198.51.100.{n}") for n in range(256)])),
    Good(POOL, pool(quota={"addressesPerNamespace": 1})),
    *(Good(POOL, pool(quarantine=text)) for text in ("0s", "45s", "90m", "1h", "1h30m", "24h0m0s", "8760h")),
    Good(POOL, pool(), name="p" + "0" * 54),
    Good(POOL, pool(), name="sluice"),
    Good(POLICY, policy()),
    Good(POLICY, policy(podSelector={"matchLabels": {}})),
    Good(POLICY, policy(podSelector={"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]})),
    Good(POLICY, policy(serviceAccounts=["billing", "invoices"])),
    Good(POLICY, to("203.0.113.0/24", "2001:db8:9::/48", **{"except": ["203.0.113.7/32"]})),
    Good(POLICY, to("0.0.0.0/0", "::/0", **{"except": ["10.0.0.0/8"]})),
    Good(POLICY, to(ports=[{"port": 443}, {"protocol": "UDP", "port": 1024, "endPort": 65535}])),
    Good(POLICY, {**to(), "otherwise": "Drop"}),
    Good(POLICY, policy(addresses={"families": ["IPv4"], "requested": ["198.51.100.21"]})),
    Good(POLICY, policy(addresses={"requested": ["2001:db8:100::5", "198.51.100.21"]})),
    *(Good(POLICY, policy(priority=priority)) for priority in (-1000, 1000)),
    Good(IP, claim(), name="198.51.100.21"),
    Good(IP, claim(claimed="2026-01-01T00:00:00Z"), name="198.51.100.21"),
    Good(IP, claim("2001:db8:100::5"), name="2001-0db8-0100-0000-0000-0000-0000-0005"),
    Good(NODE, {}, name="n1.example"),
)

ENTRY, SPLIT, HOST = "not an address, a range first-last or a CIDR", "mixes IPv4 and IPv6", "has host bits set"
NEVER, LARGE = "cannot be an egress IP", "the CIDR is too large"
ADDRESSES, EXCLUDE = "spec.addresses", "spec.exclude"
KEYS, VALUES = "a misspelt key counts as none", "In and NotIn need values"
NAME = "the name also names a Service"
KEY, VALUE = "not the key of a label", "not the value of a label"
CLAIMED = "an EgressIP is named by its address"

BAD_POOLS = (
    *(
        Bad(POOL, "spec.addresses[0]", ENTRY, pool(text))
        for text in ("198.51.100", "198.51.100.256", "198.51.100.07", " 198.51.100.7", "partners", "fe80::1%eth0",
                     "::ffff:198.51.100.7", "198.51.100.0/33", "198.51.100.0/024", "198.51.100.0/255.255.255.0",
                     "198.51.100.1-", "198.51.100.1 - 198.51.100.9", "198.51.100.1-198.51.100.2-198.51.100.3")
    ),
    Bad(POOL, "spec.addresses[0]", HOST, pool("198.51.100.17/28")),
    Bad(POOL, "spec.addresses[0]", HOST, pool("2001:db8::1/120")),
    Bad(POOL, "spec.addresses[0]", SPLIT, pool("198.51.100.1-2001:db8::1")),
    *(
        Bad(POOL, "spec.addresses[0]", NEVER, pool(text))
        for text in ("0.0.0.0", "127.0.0.1", "169.254.7.0/24", "224.0.0.1", "239.1.1.0/24", "240.0.0.1",
                     "255.255.255.255", "223.255.255.250-224.0.0.5", "::", "::1", "fe80::1", "FE80::/112", "ff02::1")
    ),
    Bad(POOL, "spec.addresses[0]", LARGE, pool("10.0.0.0/15")),
    Bad(POOL, "spec.addresses[0]", LARGE, pool("2001:db8::/64")),
    Bad(POOL, "spec.addresses[0]", "79", pool("198.51.100.7" + " " * 70)),
    Bad(POOL, ADDRESSES, "an entry stands twice", pool("198.51.100.7", "198.51.100.7")),
    Bad(POOL, ADDRESSES, "a CIDR is within another one", pool("198.51.100.0/24", "198.51.100.16/28")),
    Bad(POOL, ADDRESSES, "is within a CIDR", pool("198.51.100.0/24", "198.51.100.16")),
    Bad(POOL, ADDRESSES, "is within a CIDR", pool("198.51.100.250-198.51.101.9", "198.51.100.0/24")),
    Bad(POOL, ADDRESSES, "64", pool(*(f"198.51.100.{n}" for n in range(65)))),
    Bad(POOL, ADDRESSES, "at least 1", {"addresses": []}),
    Bad(POOL, ADDRESSES, "Required value", {}),
    Bad(POOL, "spec.exclude[0]", ENTRY, pool(exclude=["198.51.100"])),
    Bad(POOL, "spec.exclude[0]", HOST, pool(exclude=["198.51.100.17/28"])),
    Bad(POOL, EXCLUDE, "64", pool(exclude=[f"198.51.100.{n}" for n in range(65)])),
    Bad(POOL, "spec.namespaces", "to select everything write matchLabels: {}", pool(namespaces={})),
    Bad(POOL, "spec.namespaces", "a misspelt key counts as none", pool(namespaces={"matchLabel": {"a": "b"}})),
    Bad(POOL, "spec.namespaces.matchLabels.a", "63", pool(namespaces={"matchLabels": {"a": LONG}})),
    Bad(POOL, "spec.namespaces.matchExpressions[0]", VALUES, allows(key="a", operator="In")),
    Bad(POOL, "spec.namespaces.matchExpressions[0].key", "at least 1", allows(key="", operator="Exists")),
    Bad(POOL, "spec.namespaces.matchExpressions[0].operator", "Unsupported value", allows(key="a", operator="in")),
    Bad(POOL, "spec.namespaces.matchExpressions[0].values[0]", "63", allows(key="a", operator="In", values=[LONG])),
    Bad(POOL, "spec.gateways.replicas", "greater than or equal to 1", pool(gateways={"replicas": 0})),
    Bad(POOL, "spec.gateways.replicas", "less than or equal to 64", pool(gateways={"replicas": 65})),
    Bad(POOL, "spec.gateways.nodeSelector.a", "63", pool(gateways={"nodeSelector": {"a": LONG}})),
    Bad(POOL, "spec.namespaces", KEYS, pool(namespaces={"matchExpressions": []})),
    Bad(POOL, "spec.namespaces.matchLabels", KEY, pool(namespaces={"matchLabels": {"team name": "a"}})),
    Bad(POOL, "spec.namespaces.matchLabels[team]", VALUE, pool(namespaces={"matchLabels": {"team": "a b"}})),
    Bad(POOL, "spec.namespaces.matchExpressions[0].key", KEY, allows(key="-team", operator="Exists")),
    Bad(POOL, "spec.namespaces.matchExpressions[0].values[0]", VALUE, allows(key="a", operator="In", values=["-"])),
    *(
        Bad(POOL, "spec.gateways.nodeSelector", KEY, pool(gateways={"nodeSelector": {key: ""}}))
        for key in ("a b", "a/b/c", "/a", "a/", "Example.com/a", "_a", "a" * 64, "")
    ),
    *(
        Bad(POOL, "spec.gateways.nodeSelector[a]", VALUE, pool(gateways={"nodeSelector": {"a": value}}))
        for value in ("yes please", "-a", "a.", "é")
    ),
    Bad(POOL, "spec.gateways.tolerations[0].key", KEY, tolerates(key="a b", operator="Exists")),
    Bad(POOL, "spec.gateways.tolerations[0].value", VALUE, tolerates(key="a", value="b c")),
    *(
        Bad(POOL, "spec.gateways.tolerations[0].tolerationSeconds", "goes with effect NoExecute only", spec)
        for spec in (
            tolerates(key="a", operator="Exists", tolerationSeconds=30),
            tolerates(key="a", operator="Exists", effect="NoSchedule", tolerationSeconds=30),
        )
    ),
    *(
        Bad(POOL, "spec.gateways.resources.requests", "a request is above its limit",
            pool(gateways={"resources": {"requests": {name: request}, "limits": {name: limit}}}))
        for name, request, limit in (("cpu", 2, "1900m"), ("cpu", "0.5", "100m"), ("memory", "1Gi", "1G"))
    ),
    Bad(POOL, "spec.gateways.tolerations[0]", "Equal needs a key", tolerates(value="x")),
    Bad(POOL, "spec.gateways.tolerations[0]", "takes no value", tolerates(operator="Exists", key="a", value="x")),
    Bad(POOL, "spec.gateways.tolerations[0].operator", "Unsupported value", tolerates(operator="exists", key="a")),
    Bad(POOL, "spec.gateways.tolerations[0].effect", "Unsupported value", tolerates(key="a", effect="NoSchedul")),
    Bad(POOL, "spec.gateways.tolerations[0].key", "at least 1", tolerates(key="")),
    Bad(POOL, "spec.gateways.tolerations[0].value", "63", tolerates(key="a", value=LONG)),
    Bad(POOL, "spec.gateways.tolerations[0].tolerationSeconds", "must be of type integer",
        tolerates(key="a", tolerationSeconds="30s")),
    Bad(POOL, "spec.gateways.resources.requests.memory", "should match",
        pool(gateways={"resources": {"requests": {"memory": "64 MB"}}})),
    Bad(POOL, "spec.gateways.resources.limits", "cpu, memory and ephemeral-storage only",
        pool(gateways={"resources": {"limits": {"mem": "64Mi"}}})),
    Bad(POOL, "spec.gateways.proxy.port", "greater than or equal to 1", pool(gateways={"proxy": {"port": 0}})),
    Bad(POOL, "spec.gateways.proxy.enabled", "must be of type boolean", pool(gateways={"proxy": {"enabled": "no"}})),
    Bad(POOL, "spec.announcement.mode", "Unsupported value", pool(announcement={"mode": "BGP"})),
    Bad(POOL, "spec.announcement.interface", "mode None announces nothing",
        pool(announcement={"mode": "None", "interface": "eth0"})),
    Bad(POOL, "spec.announcement.interface", "15", pool(announcement={"interface": "a-very-long-name"})),
    Bad(POOL, "spec.announcement.interface", "should match", pool(announcement={"interface": "eth 0"})),
    Bad(POOL, "spec.reservations[0].address", "not an IP address", pool(reservations=[reserved(address="partners")])),
    Bad(POOL, "spec.reservations[0].address", "not an IP address", pool(reservations=[reserved(address="10.0.0.0/8")])),
    Bad(POOL, "spec.reservations[0].namespace", "should match", pool(reservations=[reserved(namespace="Billing")])),
    Bad(POOL, "spec.reservations[0].namespace", "Required value", pool(reservations=[{"address": "198.51.100.21"}])),
    Bad(POOL, "spec.reservations[0].policy", "should match", pool(reservations=[reserved(policy="a/b")])),
    Bad(POOL, "spec.reservations[1]", "Duplicate value", pool(reservations=[reserved(), reserved(policy="other")])),
    Bad(POOL, "spec.reservations", "256", pool(reservations=[reserved(address=f"10.0.1.{n}") for n in range(256)]
                                               + [reserved()])),
    Bad(POOL, "spec.quota.addressesPerNamespace", "greater than or equal to 1",
        pool(quota={"addressesPerNamespace": 0})),
    Bad(POOL, "spec.quota.addressesPerNamespace", "less than or equal to 65536",
        pool(quota={"addressesPerNamespace": 65537})),
    Bad(POOL, "spec.quota.addressesPerNamespace", "Required value", pool(quota={})),
    *(
        Bad(POOL, "spec.quarantine", "quarantine is no length of time", pool(quarantine=text))
        for text in ("1", "1d", "-1h", "1.5h", "30m1h", "1h 30m", "1H", "8761h", "PT1H", "hm")
    ),
    Bad(POOL, "spec.quarantine", "at least 2", pool(quarantine="")),
    Bad(POOL, "spec.quarantine", "must be of type string", pool(quarantine=3600)),
    Bad(POOL, "spec.portsPerSlice", "power of two", pool(portsPerSlice=1000)),
    Bad(POOL, "spec.portsPerSlice", "greater than or equal to 128", pool(portsPerSlice=64)),
    Bad(POOL, "spec.portsPerSlice", "less than or equal to 16384", pool(portsPerSlice=32768)),
    Bad(POOL, "metadata.name", NAME, pool(), name="partners.eu"),
    Bad(POOL, "metadata.name", NAME, pool(), name="9partners"),
    Bad(POOL, "metadata.name", "Sluice's own Services", pool(), name="sluice-operator-metrics"),
    Bad(POOL, "metadata.name", "Sluice's own Services", pool(), name="sluice-x"),
    Bad(POOL, "metadata.name", NAME, pool(), name="p" + "0" * 55),
)  # fmt: skip

OUTSIDE = "an exception lies outside of every CIDR"
SELECTOR = "spec.podSelector"


def selects(**expression: Any) -> Document:
    """The spec of a policy whose selector is one expression."""
    return policy(podSelector={"matchExpressions": [expression]})


BAD_POLICIES = (
    Bad(POLICY, "spec.podSelector", KEYS, policy(podSelector={"matchExpressions": []})),
    Bad(POLICY, "spec.podSelector.matchLabels", KEY, policy(podSelector={"matchLabels": {"app name": "a"}})),
    Bad(POLICY, "spec.podSelector.matchLabels[app]", VALUE, policy(podSelector={"matchLabels": {"app": "a b"}})),
    Bad(POLICY, "spec.pool", "Required value", {"podSelector": {"matchLabels": {}}}),
    Bad(POLICY, "spec.pool", "should match", policy(pool="Partners")),
    Bad(POLICY, "spec.pool", "at least 1", policy(pool="")),
    Bad(POLICY, SELECTOR, "Required value", {"pool": "partners"}),
    Bad(POLICY, SELECTOR, KEYS, policy(podSelector={})),
    Bad(POLICY, SELECTOR, KEYS, policy(podSelector={"matchLabel": {"app": "billing"}})),
    Bad(POLICY, SELECTOR, KEYS, policy(podSelector={"app": "billing"})),
    Bad(POLICY, "spec.podSelector.matchLabels.app", "63", policy(podSelector={"matchLabels": {"app": LONG}})),
    Bad(POLICY, "spec.podSelector.matchExpressions[0]", VALUES, selects(key="app", operator="In")),
    Bad(POLICY, "spec.podSelector.matchExpressions[0]", VALUES, selects(key="app", operator="In", values=[])),
    Bad(POLICY, "spec.podSelector.matchExpressions[0]", VALUES, selects(key="app", operator="Exists", values=["a"])),
    Bad(POLICY, "spec.podSelector.matchExpressions[0].operator", "Unsupported value", selects(key="a", operator="in")),
    Bad(POLICY, "spec.podSelector.matchExpressions[0].key", "at least 1", selects(key="", operator="Exists")),
    Bad(POLICY, "spec.podSelector.matchExpressions[0].values[0]", "63",
        selects(key="a", operator="In", values=[LONG])),
    Bad(POLICY, "spec.serviceAccounts[1]", "Duplicate value", policy(serviceAccounts=["a", "a"])),
    Bad(POLICY, "spec.serviceAccounts[0]", "at least 1", policy(serviceAccounts=[""])),
    Bad(POLICY, "spec.destinations", "at least 1", policy(destinations=[])),
    Bad(POLICY, "spec.destinations", "64", policy(destinations=[{"cidrs": ["203.0.113.0/24"]}] * 65)),
    Bad(POLICY, "spec.destinations[0].cidrs", "Required value", policy(destinations=[{}])),
    Bad(POLICY, "spec.destinations[0].cidrs", "at least 1", policy(destinations=[{"cidrs": []}])),
    Bad(POLICY, "spec.destinations[0].cidrs[0]", "not a CIDR", to("203.0.113.7")),
    Bad(POLICY, "spec.destinations[0].cidrs[0]", "not a CIDR", to("203.0.113.0/33")),
    Bad(POLICY, "spec.destinations[0].cidrs[0]", HOST, to("203.0.113.7/24")),
    Bad(POLICY, "spec.destinations[0].except", OUTSIDE, to("203.0.113.0/24", **{"except": ["203.0.114.0/28"]})),
    Bad(POLICY, "spec.destinations[0].except", OUTSIDE, to("203.0.113.0/24", **{"except": ["203.0.112.0/20"]})),
    Bad(POLICY, "spec.destinations[0].except[0]", HOST, to("203.0.113.0/24", **{"except": ["203.0.113.7/28"]})),
    Bad(POLICY, "spec.destinations[0].ports[0].port", "greater than or equal to 1", to(ports=[{"port": 0}])),
    Bad(POLICY, "spec.destinations[0].ports[0].port", "Required value", to(ports=[{"protocol": "TCP"}])),
    Bad(POLICY, "spec.destinations[0].ports[0].endPort", "less than or equal to 65535",
        to(ports=[{"port": 1, "endPort": 65536}])),
    Bad(POLICY, "spec.destinations[0].ports[0].endPort", "endPort is below port",
        to(ports=[{"port": 450, "endPort": 443}])),
    Bad(POLICY, "spec.destinations[0].ports[0].protocol", "Unsupported value",
        to(ports=[{"protocol": "SCTP", "port": 1}])),
    Bad(POLICY, "spec.destinations[0].ports", "16", to(ports=[{"port": 1 + n} for n in range(17)])),
    Bad(POLICY, "spec.otherwise", "otherwise: Drop without destinations", policy(otherwise="Drop")),
    Bad(POLICY, "spec.otherwise", "Unsupported value", {**to(), "otherwise": "drop"}),
    Bad(POLICY, "spec.addresses.families", "at least 1", policy(addresses={"families": []})),
    Bad(POLICY, "spec.addresses.families", "a family stands twice", policy(addresses={"families": ["IPv4", "IPv4"]})),
    Bad(POLICY, "spec.addresses.families[0]", "Unsupported value", policy(addresses={"families": ["ipv4"]})),
    Bad(POLICY, "spec.addresses.requested[0]", "not an IP address", policy(addresses={"requested": ["10.0.0.0/8"]})),
    Bad(POLICY, "spec.addresses.requested", "two addresses of one family",
        policy(addresses={"requested": ["198.51.100.21", "198.51.100.22"]})),
    Bad(POLICY, "spec.addresses.requested", "which families leaves out",
        policy(addresses={"families": ["IPv6"], "requested": ["198.51.100.21"]})),
    Bad(POLICY, "spec.addresses.requested", "2",
        policy(addresses={"requested": ["198.51.100.21", "2001:db8::1", "2001:db8::2"]})),
    Bad(POLICY, "spec.priority", "less than or equal to 1000", policy(priority=1001)),
    Bad(POLICY, "spec.priority", "greater than or equal to -1000", policy(priority=-1001)),
)  # fmt: skip

BAD_CLAIMS = (
    Bad(IP, "metadata.name", CLAIMED, claim(), name="198.51.100.22"),
    Bad(IP, "metadata.name", CLAIMED, claim("2001:db8:100::5"), name="2001-db8-100--5"),
    Bad(IP, "metadata.name", CLAIMED, claim("2001:db8:100::5"), name="2001-0db8-0100-0000-0000-0000-0000-0006"),
    Bad(IP, "spec.address", "not an IP address", claim("partners"), name="partners"),
    Bad(IP, "spec.pool", "Required value", {"address": "198.51.100.21", "policy": owner()}, name="198.51.100.21"),
    Bad(IP, "spec.policy.namespace", "at least 1", claim(policy=owner(namespace="")), name="198.51.100.21"),
    Bad(IP, "spec.policy.name", "at least 1", claim(policy=owner(name="")), name="198.51.100.21"),
    Bad(IP, "spec.claimed", "date-time", claim(claimed="yesterday"), name="198.51.100.21"),
    Bad(IP, "spec.policy.uid", "64", claim(policy=owner(uid=LONG + "x")), name="198.51.100.21"),
)

BAD = (*BAD_POOLS, *BAD_POLICIES, *BAD_CLAIMS)

CLAIM, SIZE = "an EgressIP is a claim and cannot be changed", "portsPerSlice cannot be changed"
CHANGES = (
    Change(POOL, pool(), {"portsPerSlice": 2048}, SIZE),
    Change(POOL, pool(portsPerSlice=2048), {"portsPerSlice": None}, SIZE),
    Change(POOL, pool(), {"portsPerSlice": 1024}, ""),
    Change(POOL, pool(), {"addresses": ["198.51.100.17/28"]}, HOST),
    Change(POOL, pool(), {"addresses": ["198.51.100.16/28", "203.0.113.7"], "gateways": {"replicas": 3}}, ""),
    Change(POLICY, policy(), {"pool": "others", "priority": 5}, ""),
    Change(POLICY, policy(), {"podSelector": {"matchLabels": None}}, KEYS),
    Change(POLICY, to(), {"destinations": None}, ""),
    Change(POLICY, {**to(), "otherwise": "Drop"}, {"destinations": None}, "otherwise: Drop without destinations"),
    Change(POOL, pool(), {"quarantine": "0s"}, ""),
    Change(IP, claim(), {"claimed": "2026-01-01T00:00:00Z"}, CLAIM, name="198.51.100.21"),
    Change(IP, claim(), {"pool": "others"}, CLAIM, name="198.51.100.21"),
    Change(IP, claim(), {"policy": {"name": "other"}}, CLAIM, name="198.51.100.21"),
    Change(IP, claim(), {"address": "198.51.100.22"}, CLAIM, name="198.51.100.21"),
)
