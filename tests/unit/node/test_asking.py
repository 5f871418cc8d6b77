"""A gateway finds out who has an address before it is given, without harm to anybody and without being fooled."""

from collections.abc import Callable, Mapping
from ipaddress import IPv4Interface, IPv6Interface, ip_address
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice_api.timers import ASK_AGAIN, ASK_CONFLICT_AGAIN
from sluice_node.core.asking import PACE, TIMES, Asking, decoys
from sluice_node.core.desired import Address
from sluice_node.core.links import Links

FREE, USED, HELD = (ip_address(f"198.51.100.{last}") for last in (7, 8, 9))
USED_V6 = ip_address("2001:db8:5::8")
DECOY, DECOY_V6 = ip_address("198.51.100.0"), ip_address("2001:db8:5::dec0")
HOST, ROUTER, NODE = "02:00:00:00:00:aa", "02:00:00:00:00:bb", "02:00:00:00:00:cc"
WANTED = dict.fromkeys((FREE, USED, USED_V6), "eth0")
DECOYS = dict.fromkeys((DECOY, DECOY_V6), "eth0")


class Link:
    """Virtual time on a link: `voices` gives, for an address, the MACs that answer for it."""

    def __init__(self, voices: Callable[[Address], tuple[str, ...]], draw: Callable[[], float] = lambda: 0.5) -> None:
        self.asking = Asking(draw)
        self.voices = voices
        self.now = 0.0
        self.asked: list[tuple[float, Address]] = []

    def follow(
        self,
        wanted: Mapping[Address, str] = WANTED,
        *,
        held: tuple[Address, ...] = (),
        first: tuple[Address, ...] = (),
        decoys: Mapping[Address, str] = DECOYS,
    ) -> None:
        self.asking.follow(wanted, decoys=decoys, held=dict.fromkeys(held, "eth0"), first=first, now=self.now)

    def until(self, end: float) -> None:
        while (due := self.asking.next()) is not None and due <= end:
            self.now = max(self.now, due)
            for interface, address in self.asking.due(self.now):
                self.asked.append((self.now, address))
                for mac in self.voices(address):
                    self.asking.hear(interface, address, mac, self.now)
        self.now = end

    def occupied(self, *ours: str) -> dict[Address, tuple[str, str]]:
        return self.asking.occupied(lambda: frozenset(ours))


def host(address: Address) -> tuple[str, ...]:
    return (HOST,) if address in (USED, USED_V6) else ()


def everything(address: Address) -> tuple[str, ...]:
    return (ROUTER,)


def test_who_has_an_address_is_named_and_silence_is_free() -> None:
    link = Link(host)
    link.follow()
    link.until(30)
    assert link.occupied() == {USED: (HOST, "eth0"), USED_V6: (HOST, "eth0")}


def test_nothing_follows_before_the_question_was_put_to_the_end() -> None:
    link = Link(host)
    link.follow()
    link.until(2)
    assert link.occupied() == {}


def test_a_router_that_answers_for_everything_occupies_nothing_and_a_host_beside_it_does() -> None:
    link = Link(everything)
    link.follow()
    link.until(30)
    assert link.occupied() == {}
    assert link.asking.everybodys() == {("eth0", ROUTER)}
    both = Link(lambda address: everything(address) + host(address))
    both.follow()
    both.until(30)
    assert both.occupied().keys() == {USED, USED_V6}


def test_a_router_for_a_range_with_the_pool_in_it_occupies_the_pool() -> None:
    """A firewall that answers for a range of its own NAT does have these addresses."""
    link = Link(lambda address: () if address in DECOYS else (ROUTER,))
    link.follow()
    link.until(30)
    assert link.occupied().keys() == WANTED.keys()


def test_nodes_of_the_cluster_occupy_nothing() -> None:
    link = Link(lambda address: (NODE,))
    link.follow()
    link.until(30)
    assert link.occupied(NODE) == {}


@pytest.mark.parametrize("draw", [0.0, 0.3, 1.0])
def test_each_address_is_asked_three_times_with_the_pauses_of_the_standard(draw: float) -> None:
    link = Link(host, draw=lambda: draw)
    link.follow()
    link.until(60)
    for address in WANTED:
        times = [at for at, asked in link.asked if asked == address]
        assert len(times) == TIMES
        assert all(1 <= later - earlier <= 2 for earlier, later in pairwise(times))


def test_many_addresses_begin_few_at_a_time() -> None:
    link = Link(lambda address: ())
    many = {FREE + index: "eth0" for index in range(64)}
    link.follow(many)
    link.until(120)
    assert len(link.asked) == TIMES * (len(many) + len(DECOYS))
    for at, _ in link.asked:
        busy = sum(1 for other, _ in link.asked if at <= other < at + 1)
        assert busy <= TIMES * (1 / PACE + 1)


def test_it_is_asked_again_in_time_and_what_became_free_is_free() -> None:
    link = Link(host)
    link.follow()
    link.until(30)
    link.voices = lambda address: ()
    link.until(ASK_CONFLICT_AGAIN + 60)
    assert link.occupied() == {}
    link.voices = lambda address: (HOST,) if address == FREE else ()
    link.until(2 * ASK_AGAIN)
    assert link.occupied() == {FREE: (HOST, "eth0")}


def test_following_the_same_again_asks_nothing_anew() -> None:
    link = Link(host)
    for _ in range(5):
        link.follow()
        link.until(link.now + 10)
    assert len(link.asked) == TIMES * (len(WANTED) + len(DECOYS))


def test_another_interface_is_asked_anew_and_what_is_not_wanted_is_forgotten() -> None:
    link = Link(host)
    link.follow()
    link.until(30)
    link.follow(dict.fromkeys(WANTED, "eth1"), decoys=dict.fromkeys(DECOYS, "eth1"))
    assert link.occupied() == {}
    link.until(60)
    assert link.occupied() == {USED: (HOST, "eth1"), USED_V6: (HOST, "eth1")}
    link.follow({})
    assert link.occupied() == {}


def test_a_held_egress_ip_is_asked_for_by_its_first_holder_alone() -> None:
    link = Link(lambda address: (HOST,) if address == HELD else ())
    link.follow({}, held=(HELD,), first=(HELD,), decoys={})
    for end in (30, 3 * ASK_CONFLICT_AGAIN):
        link.until(end)
        assert link.occupied() == {HELD: (HOST, "eth0")}, "as long as somebody answers"
        link.follow({}, held=(HELD,), decoys={})
        link.follow({}, held=(HELD,), first=(HELD,), decoys={})
    link.voices = lambda address: ()
    link.until(5 * ASK_CONFLICT_AGAIN)
    assert link.occupied() == {}
    asked = len(link.asked)
    link.until(3 * ASK_AGAIN)
    assert len(link.asked) == asked, "silence ends it"
    taken_over = Link(host)
    taken_over.follow({}, held=(USED,), decoys={})
    taken_over.until(60)
    assert taken_over.asked == []


def test_an_address_that_is_claimed_while_it_is_asked_for_is_asked_to_the_end() -> None:
    link = Link(host)
    link.follow()
    link.until(1)
    link.follow({FREE: "eth0"}, held=(USED,), first=(USED,))
    link.until(30)
    assert link.occupied() == {USED: (HOST, "eth0")}
    assert [address for _, address in link.asked].count(USED) == TIMES


def test_who_speaks_as_an_egress_ip_that_is_held_here_is_named_for_a_while() -> None:
    link = Link(lambda address: ())
    link.follow({}, held=(HELD,), decoys={})
    link.asking.hear("eth0", HELD, NODE, 1.0)
    link.asking.hear("eth1", HELD, HOST, 1.0)
    link.now = 2.0
    assert link.occupied(NODE) == {}, "another gateway of the pool, and another interface"
    link.asking.hear("eth0", HELD, HOST, 2.0)
    assert link.occupied(NODE) == {HELD: (HOST, "eth0")}
    link.until(3 + ASK_CONFLICT_AGAIN)
    assert link.occupied(NODE) == {}


def test_what_an_earlier_process_heard_stands_until_it_was_asked_anew() -> None:
    link = Link(lambda address: ())
    link.asking.remember(USED, "eth0", HOST)
    link.follow(decoys={})
    assert link.occupied() == {USED: (HOST, "eth0")}
    link.until(30)
    assert link.occupied() == {}


def test_voices_are_bounded() -> None:
    link = Link(lambda address: tuple(f"02:00:00:00:{index // 256:02x}:{index % 256:02x}" for index in range(1000)))
    link.follow({FREE: "eth0"}, held=(HELD,), decoys={})
    link.until(30)
    for index in range(1000):
        link.asking.hear("eth0", HELD, f"02:00:00:01:{index // 256:02x}:{index % 256:02x}", 1.0)
    assert link.occupied().keys() == {FREE, HELD}


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([FREE, USED, HELD, DECOY]), st.sampled_from([HOST, NODE]), st.floats(0, 9))))
def test_nothing_that_is_heard_unasked_occupies_anything_but_what_is_held(
    said: list[tuple[Address, str, float]],
) -> None:
    link = Link(lambda address: ())
    link.follow({}, held=(HELD,), decoys={})
    for address, mac, at in said:
        link.asking.hear("eth0", address, mac, at)
    assert link.occupied(NODE).keys() <= {HELD}


def test_decoys_are_where_the_addresses_are() -> None:
    links = Links(
        (
            ("eth0", IPv4Interface("198.51.100.2/24")),
            ("eth0", IPv6Interface("2001:db8::2/64")),
            ("eth1", IPv4Interface("192.0.2.2/24")),
        )
    )

    def of(*texts: str) -> set[str]:
        return {str(address) for address in decoys(links, "eth0", [ip_address(text) for text in texts])}

    assert of("198.51.100.7", "198.51.100.8") == {"198.51.100.0"}
    assert of("203.0.113.7") == {"192.0.0.8"}
    assert of("192.0.2.7") == {"192.0.0.8"}, "another interface's network is elsewhere"
    assert of("2001:db8:5::7") == {"100::5:1dec"}
    (near,) = of("2001:db8::7")
    assert near.startswith("2001:db8::")
    assert near not in ("2001:db8::7", "2001:db8::")
