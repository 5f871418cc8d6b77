"""Reservations and quotas: who may have how much of a pool, and that neither takes anything away."""

from typing import Any

import pytest
from tests.unit.operator.operator_fakes import NOON, FakeOperator, World, settle

from sluice_operator.core.times import moment
from sluice_operator.shell import kube

FIRST, SECOND, THIRD = "198.51.100.17", "198.51.100.18", "198.51.100.19"


class Story:
    """A pool of three addresses, namespaces a and b, and a node."""

    def __init__(self) -> None:
        self.world = World()
        self.operator = FakeOperator(self.world.api)

    async def start(self, **spec: Any) -> "Story":
        await self.operator.start()
        self.world.namespace("a")
        self.world.namespace("b")
        self.world.node("n1", gateway_for=["p"])
        self.pool(**spec)
        return self

    def pool(self, **spec: Any) -> None:
        self.world.pool("p", [f"{FIRST}-{THIRD}", "2001:db8::1-2001:db8::3"], **spec)

    async def policy(self, name: str, **spec: Any) -> None:
        namespace, policy = name.split("/")
        self.world.policy(namespace, policy, "p", addresses={"families": ["IPv4"]} | spec)
        await self.settle()

    async def settle(self, *, after: int = 0) -> None:
        self.world.api.now += after
        await settle(self.world, self.operator)

    def address(self, name: str) -> str:
        status = self.world.api.named(kube.EGRESS_POLICY)[name]["status"]
        return ",".join(status.get("addresses", []))

    def assigned(self, name: str) -> tuple[str, str, str]:
        status = self.world.api.named(kube.EGRESS_POLICY)[name]["status"]
        entry = next(entry for entry in status["conditions"] if entry["type"] == "Assigned")
        return entry["status"], entry["reason"], entry["message"]

    def counts(self) -> dict[str, Any]:
        found: dict[str, Any] = self.world.api.named(kube.EGRESS_POOL)["p"]["status"]["ipv4"]
        return found


def reserved(address: str, namespace: str, policy: str | None = None) -> dict[str, str]:
    return {"address": address, "namespace": namespace} | ({"policy": policy} if policy else {})


async def test_a_reserved_address_is_given_to_whom_it_is_reserved_for_and_to_nobody_else() -> None:
    story = await Story().start(reservations=[reserved(FIRST, "b", "late"), reserved(SECOND, "b")])
    await story.policy("a/one")
    await story.policy("a/two")
    assert (story.address("a/one"), story.address("a/two")) == (THIRD, "")
    assert story.counts()["reserved"] == 2
    assert story.counts()["free"] == 0
    status, reason, message = story.assigned("a/two")
    assert (status, reason) == ("False", "PoolExhausted")
    assert "1 of 3 assigned, 2 reserved" in message
    await story.policy("b/any")
    await story.policy("b/late")
    assert (story.address("b/any"), story.address("b/late")) == (SECOND, FIRST)
    assert story.counts()["reserved"] == 0


async def test_an_address_reserved_for_others_is_refused_to_who_asks_for_it_and_nobody_is_named() -> None:
    story = await Story().start(reservations=[reserved(SECOND, "secret-tenant")])
    await story.policy("a/one", requested=[SECOND])
    status, reason, message = story.assigned("a/one")
    assert (status, reason) == ("False", "AddressInUse")
    assert f"{SECOND} is reserved" in message
    assert "secret-tenant" not in message


async def test_a_reservation_takes_nothing_from_who_has_the_address_not_even_when_its_claim_is_deleted() -> None:
    story = await Story().start()
    await story.policy("a/one")
    story.pool(reservations=[reserved(FIRST, "b")])
    await story.settle()
    story.world.api.remove(kube.EGRESS_IP, FIRST)
    await story.policy("b/one")
    assert (story.address("a/one"), story.address("b/one")) == (FIRST, SECOND)
    story.world.remove_policy("a", "one")
    await story.settle()
    await story.settle(after=3600)
    await story.policy("a/other")
    await story.policy("b/two")
    assert (story.address("a/other"), story.address("b/two")) == (THIRD, FIRST)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ([reserved("203.0.113.9", "a")], ("spec.reservations[0].address", "203.0.113.9", "not an address of the pool")),
        ([reserved("2001:db8::1", "a"), reserved("2001:db8:0::1", "b")], ("spec.reservations[1].address", "twice")),
    ],
)
async def test_a_reservation_that_cannot_be_is_said_at_the_pool(wrong: list[dict[str, str]], words: tuple[str]) -> None:
    story = await Story().start(reservations=wrong)
    await story.settle()
    conditions = story.world.api.named(kube.EGRESS_POOL)["p"]["status"]["conditions"]
    accepted = next(entry for entry in conditions if entry["type"] == "Accepted")
    assert (accepted["status"], accepted["reason"]) == ("False", "InvalidSpec")
    assert all(word in accepted["message"] for word in words)


async def test_a_namespace_has_at_most_what_the_quota_says_of_each_family() -> None:
    story = await Story().start(quota={"addressesPerNamespace": 1})
    await story.policy("a/one")
    await story.policy("a/two")
    await story.policy("a/six", families=["IPv6"])
    await story.policy("b/one")
    assert (story.address("a/one"), story.address("a/two"), story.address("b/one")) == (FIRST, "", SECOND)
    assert story.address("a/six") == "2001:db8::1"
    status, reason, message = story.assigned("a/two")
    assert (status, reason) == ("False", "QuotaExceeded")
    assert "namespace a has 1 IPv4 addresses of pool p" in message
    assert "addressesPerNamespace is 1" in message


async def test_two_policies_made_at_once_do_not_slip_past_the_quota() -> None:
    story = await Story().start(quota={"addressesPerNamespace": 1})
    story.world.policy("a", "one", "p", addresses={"families": ["IPv4"]})
    await story.policy("a/two", requested=[THIRD])
    assert sorted(bool(story.address(name)) for name in ("a/one", "a/two")) == [False, True]


async def test_addresses_that_rest_count_so_that_nobody_uses_up_a_pool_by_making_policies_and_deleting_them() -> None:
    story = await Story().start(quota={"addressesPerNamespace": 2})
    for number in range(3):
        await story.policy(f"a/p{number}")
        story.world.remove_policy("a", f"p{number}")
        await story.settle()
    await story.policy("a/last")
    assert f"2 of them resting, the first until {moment(NOON + 3600)}" in story.assigned("a/last")[2]
    assert story.counts()["free"] == 1
    await story.policy("a/p0")
    assert story.address("a/p0") == FIRST, "what rests for it is its own"


async def test_a_lower_quota_takes_nothing_away() -> None:
    story = await Story().start()
    await story.policy("a/one")
    await story.policy("a/two")
    story.pool(quota={"addressesPerNamespace": 1})
    await story.settle()
    story.world.api.remove(kube.EGRESS_IP, SECOND)
    await story.settle()
    assert (story.address("a/one"), story.address("a/two")) == (FIRST, SECOND)
