"""The allocator under arbitrary histories: policies come, go and change, claims are made, statuses are lost."""

from ipaddress import IPv4Address, ip_address

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from sluice_api.addresses import object_name
from sluice_operator.core.allocate import Allocator, Allotment
from sluice_operator.core.index import build
from sluice_operator.core.pools import resolve
from sluice_operator.core.snapshot import (
    Address,
    EgressIP,
    Policy,
    PolicyKey,
    PolicyStatus,
    Pool,
    Settings,
    Snapshot,
)

FIRST = int(IPv4Address("198.51.100.0"))
NUMBERS = st.integers(min_value=0, max_value=7)
NAMES = st.integers(min_value=0, max_value=5).map(lambda number: PolicyKey("a", f"policy-{number}"))


def _address(number: int) -> Address:
    return IPv4Address(FIRST + number)


class AllocatorMachine(RuleBasedStateMachine):
    """What the operator's next plan would do, applied or lost at random."""

    def __init__(self) -> None:
        super().__init__()
        self.policies: dict[PolicyKey, Policy] = {}
        self.claims: dict[str, EgressIP] = {}
        self.range = (0, 5)
        self.born = 0

    def _allotments(self) -> dict[PolicyKey, Allotment]:
        first, last = self.range
        pool = Pool("p", "u", 1, "2026", (f"{_address(first)}-{_address(last)}",))
        snapshot = Snapshot(
            now="", settings=Settings("s", "i"), pools={"p": pool}, policies=self.policies, egress_ips=self.claims
        )
        allocator = Allocator(resolve([pool]), self.claims.values())
        return allocator.allot(self.policies.values(), build(snapshot).claims_of)

    @rule(key=NAMES, requested=st.none() | NUMBERS)
    def create_or_change(self, key: PolicyKey, requested: int | None) -> None:
        old = self.policies.get(key)
        self.born += 1
        self.policies[key] = Policy(
            key=key,
            uid="u",
            generation=1,
            created=old.created if old else f"{self.born:04}",
            pool="p",
            requested=() if requested is None else (_address(requested),),
            status=old.status if old else PolicyStatus(),
        )

    @rule(key=NAMES)
    def delete(self, key: PolicyKey) -> None:
        self.policies.pop(key, None)

    @rule(first=NUMBERS, last=NUMBERS)
    def resize_pool(self, first: int, last: int) -> None:
        self.range = (min(first, last), max(first, last))

    @rule(made=st.integers(min_value=0, max_value=3))
    def make_some_claims(self, made: int) -> None:
        """Crash after `made` writes."""
        wanted = [(key, address) for key, allotment in self._allotments().items() for address in allotment.new]
        for key, address in wanted[:made]:
            name = object_name(address)
            assert name not in self.claims, "an address was to be claimed twice"
            self.claims[name] = EgressIP(name, "u", address, "p", key)

    @rule()
    def write_statuses(self) -> None:
        for key, allotment in self._allotments().items():
            old = self.policies[key]
            status = PolicyStatus(addresses=tuple(claim.address for claim in allotment.used))
            self.policies[key] = Policy(key, "u", 1, old.created, "p", requested=old.requested, status=status)

    @rule(key=NAMES)
    def lose_status(self, key: PolicyKey) -> None:
        old = self.policies.get(key)
        if old is not None:
            self.policies[key] = Policy(key, "u", 1, old.created, "p", requested=old.requested)

    @rule()
    def release_unused(self) -> None:
        used = {claim.name for allotment in self._allotments().values() for claim in allotment.used}
        self.claims = {name: claim for name, claim in self.claims.items() if name in used}

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def somebody_deletes_a_claim(self, data: st.DataObject) -> None:
        del self.claims[data.draw(st.sampled_from(sorted(self.claims)))]

    @invariant()
    def no_address_twice_and_none_of_another(self) -> None:
        allotments = self._allotments()
        new = [address for allotment in allotments.values() for address in allotment.new]
        used = [claim.address for allotment in allotments.values() for claim in allotment.used]
        assert len(set(new)) == len(new)
        assert len(set(used)) == len(used)
        assert not set(new) & {claim.address for claim in self.claims.values()}
        for key, allotment in allotments.items():
            assert all(claim.policy == key for claim in allotment.used)

    @invariant()
    def a_claim_is_the_truth(self) -> None:
        for key, allotment in self._allotments().items():
            owned = [claim for claim in self.claims.values() if claim.policy == key]
            assert bool(allotment.used) == bool(owned)

    @invariant()
    def the_same_question_has_the_same_answer(self) -> None:
        assert self._allotments() == self._allotments()

    @invariant()
    def either_an_address_or_a_reason(self) -> None:
        for allotment in self._allotments().values():
            assert allotment.used or allotment.new or allotment.refusals


def test_no_history_gives_an_address_twice_or_loses_one() -> None:
    limits = settings(max_examples=30, stateful_step_count=20, deadline=None)
    run_state_machine_as_test(AllocatorMachine, settings=limits)  # type: ignore[no-untyped-call]


def test_an_address_that_a_status_remembers_is_restored_before_anyone_gets_the_next_free_one() -> None:
    remembered = ip_address("198.51.100.1")
    older = Policy(PolicyKey("a", "old"), "u", 1, "2025", "p")
    younger = Policy(PolicyKey("a", "new"), "u", 1, "2026", "p", status=PolicyStatus(addresses=(remembered,)))
    pools = resolve([Pool("p", "u", 1, "2020", ("198.51.100.1-198.51.100.2",))])
    allotments = Allocator(pools, ()).allot([older, younger], {})
    assert allotments[younger.key].new == (remembered,)
    assert allotments[older.key].new == (ip_address("198.51.100.2"),)
