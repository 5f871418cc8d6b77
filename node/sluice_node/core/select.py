"""Which policy each pod of this node belongs to.

Rules:
- A policy selects the pods of its own namespace that match its selector and, if it names service accounts, use one of
  them.
- Pods on the host network, finished pods and pods without an address are never selected: their packets do not bear an
  address of their own.
- Of several policies that select a pod the one with the higher priority wins, then the older, then the one whose name
  comes first. For every other one the pod counts as overridden.
- An address belongs to one pod: when two claim it (the API still shows a pod whose address was given away), it is the
  one that is not terminating, then the younger.
Pure: no I/O, no clock.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sluice_node.core.desired import Address
from sluice_node.core.objects import Key, Pod, Policy, Requirement, Selector


@dataclass(frozen=True, slots=True)
class Selection:
    """`addresses`: of each policy that selects a pod here, the addresses of the pods it won; `pods` and `overridden`
    count its pods, won and lost, and `winners` are the policies that those lost pods follow instead."""

    addresses: Mapping[Key, tuple[Address, ...]] = field(default_factory=dict)
    pods: Mapping[Key, int] = field(default_factory=dict)
    overridden: Mapping[Key, int] = field(default_factory=dict)
    winners: Mapping[Key, frozenset[Key]] = field(default_factory=dict)


def matches(selector: Selector, labels: Mapping[str, str]) -> bool:
    """Whether a label selector selects an object with these labels (apimachinery, LabelSelectorAsSelector)."""
    for key, value in selector.labels:
        if labels.get(key) != value:
            return False
    return all(_fulfils(requirement, labels) for requirement in selector.requirements)


def _fulfils(requirement: Requirement, labels: Mapping[str, str]) -> bool:
    value = labels.get(requirement.key)
    match requirement.operator:
        case "In":
            return value in requirement.values
        case "NotIn":
            # An absent key is not in any set of values.
            return value not in requirement.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None


def selects(policy: Policy, pod: Pod) -> bool:
    """Whether a policy selects a pod that could be selected at all."""
    return (
        policy.key.namespace == pod.key.namespace
        and (not policy.service_accounts or pod.service_account in policy.service_accounts)
        and matches(policy.selector, pod.labels)
    )


def precedence(policy: Policy) -> tuple[int, str, str]:
    """Sorts policies so that the one that wins comes first."""
    return -policy.priority, policy.created, policy.key.name


class _Index:
    """Policies found by a label that they demand, so that a pod is held against those only that may select it."""

    def __init__(self, policies: Iterable[Policy]) -> None:
        self._by_label: dict[tuple[str, str, str], list[tuple[int, Policy]]] = {}
        self._others: dict[str, list[tuple[int, Policy]]] = {}
        for rank, policy in enumerate(sorted(policies, key=precedence)):
            namespace = policy.key.namespace
            if policy.selector.labels:
                key, value = policy.selector.labels[0]
                self._by_label.setdefault((namespace, key, value), []).append((rank, policy))
            else:
                self._others.setdefault(namespace, []).append((rank, policy))

    def selecting(self, pod: Pod) -> list[Policy]:
        """The policies that select a pod, the winner first."""
        namespace = pod.key.namespace
        found = list(self._others.get(namespace, ()))
        for key, value in pod.labels.items():
            found += self._by_label.get((namespace, key, value), ())
        return [policy for _, policy in sorted(found, key=lambda entry: entry[0]) if selects(policy, pod)]


def select(pods: Iterable[Pod], policies: Iterable[Policy]) -> Selection:
    """Give every pod to at most one policy."""
    index = _Index(policies)
    eligible = [pod for pod in pods if pod.addresses and not pod.host_network and not pod.finished]
    owners = _owners(eligible)
    addresses: dict[Key, list[Address]] = {}
    won: dict[Key, int] = {}
    lost: dict[Key, int] = {}
    winners: dict[Key, set[Key]] = {}
    for pod in sorted(eligible, key=lambda pod: pod.key):
        own = [address for address in pod.addresses if owners[address] is pod]
        if not own:
            continue
        selecting = index.selecting(pod)
        for rank, policy in enumerate(selecting):
            won[policy.key] = won.get(policy.key, 0) + (rank == 0)
            lost[policy.key] = lost.get(policy.key, 0) + (rank > 0)
            if rank:
                winners.setdefault(policy.key, set()).add(selecting[0].key)
        if selecting:
            addresses.setdefault(selecting[0].key, []).extend(own)
    return Selection(
        addresses={key: tuple(own) for key, own in addresses.items()},
        pods=won,
        overridden=lost,
        winners={key: frozenset(found) for key, found in winners.items()},
    )


def _owners(pods: Iterable[Pod]) -> Mapping[Address, Pod]:
    owners: dict[Address, Pod] = {}
    for pod in pods:
        for address in pod.addresses:
            rival = owners.get(address)
            if rival is None or _claim(pod) > _claim(rival):
                owners[address] = pod
    return owners


def _claim(pod: Pod) -> tuple[bool, str, Key]:
    return not pod.terminating, pod.created, pod.key
