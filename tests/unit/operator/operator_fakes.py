"""An API server in memory, agents that report, and an operator that can be crashed, blinded and doubled.

The API server keeps the promises the operator leans on: one version counter, preconditions on uid and version, names
that exist once, finalizers that hold deletion, generations that follow specs. After every write it audits what must
never happen: an address, a slice or an id given twice.
"""

import asyncio
import marshal
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sluice_api.occupied import digest
from sluice_operator.core.snapshot import PolicyKey, Settings
from sluice_operator.core.times import moment
from sluice_operator.shell import kube
from sluice_operator.shell.kube import AlreadyExists, Conflict, Document, NotFound, Resource
from sluice_operator.shell.metrics import Metrics
from sluice_operator.shell.reconciler import Reconciler

Key = tuple[str, str, str]
SETTINGS = Settings(namespace="sluice-system", gateway_image="sluice/proxy:test")
NOON = 1767268800
"""2026-01-01T12:00:00Z"""


def copied(document: Any) -> Any:
    """A deep copy of JSON-like data, many times faster than copy.deepcopy."""
    return marshal.loads(marshal.dumps(document))


class Crash(BaseException):
    """The operator's process died: nothing in it may catch this."""


class FakeApi:
    """Objects by (plural, namespace, name); `events` grows with every change."""

    def __init__(self) -> None:
        self.objects: dict[Key, Document] = {}
        self.version = 100
        self.events: list[tuple[Resource, str, Document]] = []
        self.writes = 0
        self.crash_after: int | None = None
        self.pause: Callable[[], Any] | None = None
        self.counted: Counter[str] = Counter()
        self.now = NOON
        self.told: list[Document] = []
        self.bereft: set[str] = set()
        """Addresses whose claims somebody else than the operator deleted: statuses go on naming them for a moment."""

    def clock(self) -> str:
        """What time the operator takes it to be."""
        return moment(self.now)

    # What the operator calls.

    async def get(self, resource: Resource, name: str, *, namespace: str = "") -> Document:
        await self._yield()
        return copied(self._find(resource, name, namespace))

    async def list(self, resource: Resource, *, namespace: str = "", labels: str = "") -> tuple[list[Document], int]:
        await self._yield()
        wanted = dict(pair.split("=") for pair in labels.split(",") if pair)
        found = [
            copied(document)
            for (plural, where, _), document in self.objects.items()
            if plural == resource.plural
            and where == (namespace or where)
            and wanted.items() <= document["metadata"].get("labels", {}).items()
        ]
        return found, self.version

    async def create(self, resource: Resource, document: Mapping[str, Any], *, namespace: str = "") -> Document:
        await self._yield()
        key = (resource.plural, namespace, document["metadata"]["name"])
        if key in self.objects:
            raise AlreadyExists(str(key))
        made = copied(dict(document))
        made["metadata"] |= {"uid": f"uid-{self.version}", "generation": 1, "creationTimestamp": self._time()}
        if namespace:
            made["metadata"]["namespace"] = namespace
        if resource is kube.EVENT:
            self.told.append(made)
        else:
            self._store(resource, key, made, "ADDED")
        return self._answer(resource, "create", made)

    async def update(self, resource: Resource, document: Mapping[str, Any], *, namespace: str = "") -> Document:
        await self._yield()
        known = self._find(resource, document["metadata"]["name"], namespace)
        self._check(known, document["metadata"].get("resourceVersion"))
        made = copied(dict(document))
        self._store(resource, self._key(resource, made), made, "MODIFIED")
        return self._answer(resource, "update", made)

    async def patch(
        self, resource: Resource, name: str, document: Mapping[str, Any], *, namespace: str = "", subresource: str = ""
    ) -> Document:
        await self._yield()
        known = self._find(resource, name, namespace)
        patch = copied(dict(document))
        self._check(known, patch.get("metadata", {}).pop("resourceVersion", None))
        body = {"status": patch.get("status")} if subresource == "status" else patch
        made = _merged(known, body)
        self._put(resource, made, before=known)
        return self._answer(resource, f"patch {subresource}".strip(), made)

    async def apply(
        self, resource: Resource, document: Mapping[str, Any], *, namespace: str = "", force: bool = False
    ) -> Document:
        await self._yield()
        key = (resource.plural, namespace, document["metadata"]["name"])
        known = self.objects.get(key)
        if known is None:
            made = copied(dict(document))
            made["metadata"] |= {"uid": f"uid-{self.version}", "generation": 1, "creationTimestamp": self._time()}
            self._store(resource, key, made, "ADDED")
        else:
            made = _merged(known, document)
            self._put(resource, made, before=known)
        return self._answer(resource, "apply", made)

    async def delete(
        self, resource: Resource, name: str, *, namespace: str = "", uid: str = "", version: int = 0
    ) -> None:
        await self._yield()
        known = self._find(resource, name, namespace)
        self._check(known, str(version) if version else None)
        if uid and known["metadata"]["uid"] != uid:
            raise Conflict("another uid")
        self.remove(resource, name, namespace=namespace)
        self.bereft.discard(known.get("spec", {}).get("address", ""))
        self._answer(resource, "delete", known)

    # What people, agents and tests do.

    def put(self, resource: Resource, document: Document) -> Document:
        """Create or change an object as a user or an agent would; a changed spec is a new generation."""
        key = self._key(resource, document)
        known = self.objects.get(key)
        if known is None:
            made = copied(document)
            made["metadata"] |= {"uid": f"uid-{self.version}", "generation": 1, "creationTimestamp": self._time()}
            self._store(resource, key, made, "ADDED")
        else:
            made = copied(known) | copied({k: v for k, v in document.items() if k != "metadata"})
            made["metadata"] |= document["metadata"]
            self._put(resource, made, before=known)
        return self.objects.get(key, made)

    def remove(self, resource: Resource, name: str, *, namespace: str = "") -> None:
        """Delete an object; finalizers hold it."""
        known = self._find(resource, name, namespace)
        key = self._key(resource, known)
        if known["metadata"].get("finalizers"):
            if "deletionTimestamp" not in known["metadata"]:
                made = copied(known)
                made["metadata"]["deletionTimestamp"] = self._time()
                self._store(resource, key, made, "MODIFIED")
            return
        del self.objects[key]
        if resource == kube.EGRESS_IP:
            self.bereft.add(known["spec"]["address"])
        self.version += 1
        gone = copied(known)
        gone["metadata"]["resourceVersion"] = str(self.version)
        self.events.append((resource, "DELETED", gone))

    def named(self, resource: Resource) -> dict[str, Document]:
        """All objects of a kind, by "namespace/name" or name."""
        return {
            f"{namespace}/{name}" if namespace else name: document
            for (plural, namespace, name), document in sorted(self.objects.items())
            if plural == resource.plural
        }

    # Inside.

    async def _yield(self) -> None:
        if self.pause is not None:
            await self.pause()

    def _answer(self, resource: Resource, verb: str, document: Document) -> Document:
        """Count an operator's write, and let its process die after the one it was told to die after."""
        if resource is not kube.EVENT:
            self.writes += 1
            self.counted[f"{verb} {resource.kind}"] += 1
            self._audit()
            if self.crash_after is not None and self.writes == self.crash_after:
                raise Crash
        return copied(document)

    def _put(self, resource: Resource, made: Document, *, before: Document) -> None:
        if made.get("spec") != before.get("spec"):
            made["metadata"]["generation"] = before["metadata"].get("generation", 1) + 1
        if made == before:
            return
        key = self._key(resource, made)
        if "deletionTimestamp" in made["metadata"] and not made["metadata"].get("finalizers"):
            self.objects[key] = made
            made["metadata"]["finalizers"] = []
            self.remove(resource, made["metadata"]["name"], namespace=made["metadata"].get("namespace", ""))
            return
        self._store(resource, key, made, "MODIFIED")

    def _store(self, resource: Resource, key: Key, document: Document, kind: str) -> None:
        self.version += 1
        document["metadata"]["resourceVersion"] = str(self.version)
        self.objects[key] = document
        self.events.append((resource, kind, copied(document)))

    def _find(self, resource: Resource, name: str, namespace: str) -> Document:
        try:
            return self.objects[resource.plural, namespace, name]
        except KeyError:
            raise NotFound(f"{resource.plural} {namespace}/{name}") from None

    def _check(self, known: Document, version: str | None) -> None:
        if version is not None and known["metadata"]["resourceVersion"] != version:
            self.counted["conflict"] += 1
            raise Conflict(f"{known['metadata']['name']} is at {known['metadata']['resourceVersion']}, not {version}")

    def _key(self, resource: Resource, document: Document) -> Key:
        return resource.plural, document["metadata"].get("namespace", ""), document["metadata"]["name"]

    def _time(self) -> str:
        return f"2026-01-01T00:{self.version // 60:02}:{self.version % 60:02}Z"

    def _audit(self) -> None:
        """What must never be, at any moment."""
        claims = {claim["spec"]["address"]: claim for claim in self.named(kube.EGRESS_IP).values()}
        addresses: Counter[str] = Counter()
        numbers: Counter[int] = Counter()
        for name, policy in self.named(kube.EGRESS_POLICY).items():
            status = policy.get("status") or {}
            if status.get("id"):
                numbers[status["id"]] += 1
            for address in status.get("addresses") or ():
                addresses[address] += 1
                if address in self.bereft and address not in claims:
                    continue
                owner = claims[address]["spec"]["policy"]
                assert f"{owner['namespace']}/{owner['name']}" == name, f"{address} of {name} belongs to {owner}"
        assert all(times == 1 for times in addresses.values()), f"address given twice: {addresses}"
        assert all(times == 1 for times in numbers.values()), f"id given twice: {numbers}"
        for claim in claims.values():
            slices = (claim.get("status") or {}).get("slices") or []
            assert len({entry["ports"] for entry in slices}) == len(slices), f"ports given twice: {claim}"
            assert len({entry["node"] for entry in slices}) == len(slices), f"two slices for one node: {claim}"


def _merged(known: Mapping[str, Any], patch: Mapping[str, Any]) -> Document:
    """RFC 7396."""
    made: Document = copied(dict(known))
    for name, value in patch.items():
        if value is None:
            made.pop(name, None)
        elif isinstance(value, Mapping):
            made[name] = _merged(made[name] if isinstance(made.get(name), Mapping) else {}, value)
        else:
            made[name] = copied(value)
    return made


class Lead:
    """A leader as the reconciler sees one; `leading` is the test's to set."""

    def __init__(self) -> None:
        self.leading = True
        self.changed = asyncio.Event()

    def is_leader(self) -> bool:
        return self.leading


class FakeOperator:
    """A reconciler whose watches the test pumps, dropping or delaying what it likes."""

    def __init__(self, api: FakeApi) -> None:
        self.api = api
        self.lead = Lead()
        self.reconciler = Reconciler(
            api,
            self.lead,  # type: ignore[arg-type]
            settings=SETTINGS,
            metrics=Metrics(),
            reporter="test",
            clock=api.clock,
        )
        self._delivered = len(api.events)
        view = self.reconciler.view
        self._feeds = [(feed, "") for feed in view.feeds]
        self._feeds += [(feed, SETTINGS.namespace) for feed in view.gateway_feeds]

    async def start(self) -> None:
        await self.reconciler.sync()

    def pump(self, *, drop: Callable[[int], bool] = lambda _: False) -> None:
        """Deliver the events that have happened since the last pump."""
        for number in range(self._delivered, len(self.api.events)):
            resource, kind, document = self.api.events[number]
            if drop(number):
                continue
            for feed, only in self._feeds:
                if feed.resource == resource and only in ("", document["metadata"].get("namespace")):
                    (feed.remove if kind == "DELETED" else feed.put)(copied(document))
        self._delivered = len(self.api.events)

    async def relist(self) -> None:
        await self.reconciler.view.list_followed(self.api)
        await self.reconciler.view.poll(self.api)


@dataclass
class World:
    """A cluster: its API server, what runs on its nodes, and what its users asked for."""

    api: FakeApi = field(default_factory=FakeApi)
    pods: dict[str, dict[PolicyKey, int]] = field(default_factory=dict)
    gateways: dict[str, list[str]] = field(default_factory=dict)
    occupied: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    troubles: dict[str, list[Document]] = field(default_factory=dict)

    def pool(self, name: str, addresses: list[str], **spec: Any) -> None:
        self.api.put(kube.EGRESS_POOL, {"metadata": {"name": name}, "spec": {"addresses": addresses, **spec}})

    def namespace(self, name: str, **labels: str) -> None:
        self.api.put(kube.NAMESPACE, {"metadata": {"name": name, "labels": labels}})

    def policy(self, namespace: str, name: str, pool: str, **spec: Any) -> None:
        document = {
            "metadata": {"namespace": namespace, "name": name},
            "spec": {"pool": pool, "podSelector": {}, **spec},
        }
        self.api.put(kube.EGRESS_POLICY, document)

    def remove_policy(self, namespace: str, name: str) -> None:
        self.api.remove(kube.EGRESS_POLICY, name, namespace=namespace)

    def node(self, name: str, *, gateway_for: list[str] | None = None, addresses: tuple[str, ...] = ()) -> None:
        """A Node and the EgressNode of its agent."""
        self.pods.setdefault(name, {})
        self.gateways[name] = gateway_for or []
        self.cluster_node(name, *addresses)
        self.api.put(kube.EGRESS_NODE, {"metadata": {"name": name}, "spec": {}})

    def cluster_node(self, name: str, *addresses: str) -> None:
        """A Node as its kubelet reports it."""
        document = {
            "metadata": {"name": name},
            "spec": {},
            "status": {
                "addresses": [{"type": "InternalIP", "address": address} for address in addresses],
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        }
        self.api.put(kube.NODE, document)

    def remove_node(self, name: str) -> None:
        self.pods.pop(name)
        self.gateways.pop(name)
        self.api.remove(kube.NODE, name)
        self.api.remove(kube.EGRESS_NODE, name)

    def run_pods(self, node: str, namespace: str, policy: str, count: int) -> None:
        self.pods[node][PolicyKey(namespace, policy)] = count

    def agents(self) -> None:
        """Every node's agent programs what it sees and reports it."""
        policies, pools = self.api.named(kube.EGRESS_POLICY), self.api.named(kube.EGRESS_POOL)
        newest = max((p.get("status", {}).get("revision", 0) for p in policies.values()), default=0)
        for name, pods in self.pods.items():
            known = self.api.objects[kube.EGRESS_NODE.plural, "", name]
            revision = max(newest, known.get("status", {}).get("revision", 0))
            listed = [
                {
                    "namespace": key.namespace,
                    "name": key.name,
                    "generation": policies[str(key)]["metadata"]["generation"],
                    "pods": count,
                    "overridden": 0,
                }
                for key, count in pods.items()
                if str(key) in policies and count
            ]
            surveyed = digest((pool, entry["metadata"]["generation"]) for pool, entry in pools.items())
            status = {
                "revision": revision,
                "gatewayFor": self.gateways[name],
                "policies": listed,
                "surveyed": surveyed,
                "occupied": [{"address": address, "by": by} for address, by in self.occupied.get(name, ())],
            }
            status |= {"troubles": self.troubles[name]} if name in self.troubles else {}
            self.api.put(kube.EGRESS_NODE, {"metadata": {"name": name}, "status": status})

    def state(self) -> dict[str, Any]:
        """The outcome, without what may differ between two ways to it: versions, times, which number an id is."""
        seen: dict[str, Any] = {}
        for name, policy in self.api.named(kube.EGRESS_POLICY).items():
            status = copied(policy.get("status") or {})
            seen[f"policy {name}"] = {
                "addresses": status.get("addresses"),
                "has id": bool(status.get("id")),
                "nodes": status.get("nodes"),
                "pods": status.get("pods"),
                "conditions": [(c["type"], c["status"], c["reason"], c["message"]) for c in status["conditions"]],
            }
        for name, claim in self.api.named(kube.EGRESS_IP).items():
            owner = claim["spec"]["policy"]
            status = copied(claim.get("status") or {})
            status["conditions"] = [(c["type"], c["status"], c["reason"]) for c in status.get("conditions", ())]
            seen[f"claim {name}"] = (claim["spec"]["pool"], owner["namespace"], owner["name"], status)
        for name, pool in self.api.named(kube.EGRESS_POOL).items():
            status = copied(pool["status"])
            status["conditions"] = [(c["type"], c["status"], c["reason"], c["message"]) for c in status["conditions"]]
            seen[f"pool {name}"] = status
        for resource in kube.GATEWAY_KINDS.values():
            for name, document in self.api.named(resource).items():
                seen[f"{resource.kind} {name}"] = document["spec"]
        return seen


async def settle(world: World, operator: FakeOperator, *, drop: Callable[[int], bool] = lambda _: False) -> None:
    """Let operator and agents take turns until neither changes anything."""
    for _ in range(20):
        before = world.api.version
        operator.pump(drop=drop)
        await operator.reconciler.reconcile()
        world.agents()
        if world.api.version == before:
            return
    raise AssertionError("operator and agents do not come to rest")


def interleaving(seed: int) -> Callable[[], Any]:
    """A pause before each request, of a length drawn from `seed`: another order of two operators' requests."""
    draw = random.Random(seed)

    async def pause() -> None:
        for _ in range(draw.randrange(4)):
            await asyncio.sleep(0)

    return pause
