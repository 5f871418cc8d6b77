"""What a user writes as addresses is read in exactly one way, or refused with the value and the remedy."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from itertools import islice

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.cluster.api_table import BAD_POOLS, GOOD, POOL, Bad, Good

from sluice_api.addresses import (
    MAX_ADDRESSES,
    Address,
    AddressError,
    PoolAddresses,
    address_of,
    object_name,
    parse_address,
    parse_entry,
)

ADDRESS_CASES = [
    case
    for case in BAD_POOLS
    if case.field.startswith(("spec.addresses", "spec.exclude")) and case.message != "64" and case.spec.get("addresses")
]
V4, V6 = int(IPv4Address("198.18.0.0")), int(IPv6Address("2001:db8::"))
SPACE = 32
"""Generated entries lie within this many addresses, so that they meet often and brute force is quick."""


def make(version: int, offset: int) -> Address:
    return IPv4Address(V4 + offset) if version == 4 else IPv6Address(V6 + offset)


@st.composite
def entries(draw: st.DrawFn, forms: tuple[str, ...] = ("single", "range", "cidr")) -> str:
    """An address, a range or a CIDR within the first SPACE addresses of a block."""
    version, first = draw(st.sampled_from((4, 6))), draw(st.integers(0, SPACE - 1))
    form = draw(st.sampled_from(forms))
    if form == "single":
        return str(make(version, first))
    if form == "range":
        return f"{make(version, first)}-{make(version, draw(st.integers(first, SPACE - 1)))}"
    bits = draw(st.integers(0, 4))
    return f"{make(version, first >> bits << bits)}/{(32 if version == 4 else 128) - bits}"


def spelled_out(text: str, *, literal: bool = False) -> set[Address]:
    """The addresses of an entry, in the most plodding way."""
    if "/" in text:
        network = ip_network(text)
        every: list[Address] = list(network)
        if literal or len(every) <= 2:
            return set(every)
        return set(every[1:-1] if network.version == 4 else every[1:])
    first, _, last = text.partition("-")
    low, high = ip_address(first), ip_address(last or first)
    return {type(low)(number) for number in range(int(low), int(high) + 1)}


@given(entries())
def test_an_entry_is_the_addresses_that_counting_them_gives(text: str) -> None:
    entry = parse_entry(text)
    assert {type(entry.first)(n) for n in range(int(entry.first), int(entry.last) + 1)} == spelled_out(text)
    assert len(entry) == len(spelled_out(text))


@given(entries(("cidr",)))
def test_the_network_and_broadcast_address_of_a_network_are_never_given(text: str) -> None:
    assume(ip_network(text).num_addresses > 2)
    entry, network = parse_entry(text), ip_network(text)
    assert int(entry.first) > int(network.network_address)
    assert network.version == 6 or int(entry.last) < int(network.broadcast_address)


@given(st.lists(entries(), min_size=1, max_size=6), st.lists(entries(), max_size=4))
def test_a_pool_has_what_is_listed_less_what_is_excluded_each_address_once(listed: list[str], minus: list[str]) -> None:
    extents = [spelled_out(text, literal=True) for text in listed]
    without = [spelled_out(text, literal=True) for text in minus]
    covered = set[Address]().union(*extents)
    left = set[Address]().union(*map(spelled_out, listed)) - set[Address]().union(*without)
    overlapping = sum(map(len, extents)) > len(covered)
    pointless = any(not exclusion & covered for exclusion in without)
    if overlapping or pointless or not left:
        with pytest.raises(AddressError):
            PoolAddresses.parse(listed, minus)
        return
    pool = PoolAddresses.parse(listed, minus)
    for version in (4, 6):
        family = sorted(address for address in left if address.version == version)
        assert list(pool.of_family(version)) == family
        assert pool.count(version) == len(family)
        for offset in range(-2, SPACE + 2):
            assert (make(version, offset) in pool) == (make(version, offset) in left)


@given(st.lists(entries(), min_size=1, max_size=3), st.lists(entries(), min_size=1, max_size=3))
def test_two_pools_overlap_at_the_lowest_address_that_both_have(one: list[str], other: list[str]) -> None:
    try:
        left, right = PoolAddresses.parse(one), PoolAddresses.parse(other)
    except AddressError:
        return
    shared = set[Address]().union(*map(spelled_out, one)) & set[Address]().union(*map(spelled_out, other))
    expected = min(shared, key=lambda address: (address.version, int(address)), default=None)
    assert left.overlap(right) == right.overlap(left) == expected


@given(st.sampled_from((4, 6)), st.integers(0, 2**24))
def test_the_name_of_an_egress_ip_gives_its_address_back(version: int, offset: int) -> None:
    address = make(version, offset)
    name = object_name(address)
    assert address_of(name) == address
    assert len(name) <= 63
    assert all(part and part[0].isalnum() and part[-1].isalnum() for part in name.split("."))


@pytest.mark.parametrize("name", ["2001-db8--5", "198.51.100.007", "partners", "", "2001:db8::5", "198-51-100-7"])
def test_a_name_that_no_address_has_is_refused(name: str) -> None:
    with pytest.raises(AddressError):
        address_of(name)


REFUSED = [
    ("198.51.100.07", "leading zeros of an octet are octal to some programs", "write it like"),
    (" 198.51.100.7", "whitespace", "write it like"),
    ("198.51.100.7 ", "whitespace", "write it like"),
    ("198.51.100.7 - 198.51.100.9", "whitespace", "write it like"),
    ("", "nothing", "write it like"),
    ("-", "nothing", "write it like"),
    ("partners.example", "a name", "write it like"),
    ("198.51.100", "three octets", "write it like"),
    ("198.51.100.256", "too large an octet", "write it like"),
    ("1٠.0.0.1", "digits of another script", "write it like"),
    ("198.51.100.1-198.51.100.2-198.51.100.3", "two dashes", "write it like"),
    ("2001:db8::1%eth0", "a zone", "leave out '%eth0'"),
    ("fe80::1%eth0", "a zone", "leave out '%eth0'"),
    ("::ffff:198.51.100.7", "IPv4 in IPv6 form", "write 198.51.100.7"),
    ("198.51.100.17/28", "host bits", "write 198.51.100.16/28"),
    ("2001:db8::1/120", "host bits", "write 2001:db8::/120"),
    ("198.51.100.0/024", "leading zeros of a prefix", "prefix length from 0 to 32"),
    ("198.51.100.0/33", "too long a prefix", "prefix length from 0 to 32"),
    ("198.51.100.0/", "no prefix", "prefix length from 0 to 32"),
    ("198.51.100.0/-1", "a negative prefix", "prefix length from 0 to 32"),
    ("198.51.100.0/255.255.255.0", "a netmask", "prefix length from 0 to 32"),
    ("198.51.100.0/0.0.0.255", "a host mask", "prefix length from 0 to 32"),
    ("2001:db8::/129", "too long a prefix", "prefix length from 0 to 128"),
    ("198.51.100.9-198.51.100.1", "reversed", "write 198.51.100.1-198.51.100.9"),
    ("198.51.100.1-2001:db8::1", "mixed families", "write a range of one family"),
    ("0.0.0.0", "unspecified", "cannot be an egress IP"),
    ("0.1.2.3", "this network", "cannot be an egress IP"),
    ("::", "unspecified", "cannot be an egress IP"),
    ("127.0.0.1", "loopback", "cannot be an egress IP"),
    ("::1", "loopback", "cannot be an egress IP"),
    ("169.254.0.0/24", "link-local", "cannot be an egress IP"),
    ("fe80::/120", "link-local", "cannot be an egress IP"),
    ("224.0.0.1", "multicast", "cannot be an egress IP"),
    ("223.255.255.250-224.0.0.5", "partly multicast", "cannot be an egress IP"),
    ("ff02::1", "multicast", "cannot be an egress IP"),
    ("240.0.0.7", "reserved", "cannot be an egress IP"),
    ("255.255.255.255", "broadcast", "cannot be an egress IP"),
]


@pytest.mark.parametrize(("text", "why", "remedy"), REFUSED, ids=[f"{t or 'empty'}: {w}" for t, w, _ in REFUSED])
def test_a_doubtful_entry_is_refused_with_its_value_and_the_remedy(text: str, why: str, remedy: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_entry(text)
    message = str(caught.value)
    assert remedy in message
    assert text in message


@pytest.mark.parametrize(("text", "size"), [("198.51.100.16/31", 2), ("198.51.100.16/32", 1), ("2001:db8::/127", 2)])
def test_point_to_point_networks_are_used_whole(text: str, size: int) -> None:
    assert len(parse_entry(text)) == size


def test_an_excluded_network_takes_its_network_and_broadcast_address_away_too() -> None:
    pool = PoolAddresses.parse(["198.51.100.16/28"], ["198.51.100.20/30"])
    assert not any(address in pool for address in ip_network("198.51.100.20/30"))
    assert pool.count(4) == 10


@pytest.mark.parametrize(
    ("addresses", "exclude", "message"),
    [
        (["198.51.100.16/28", "198.51.100.30-198.51.100.40"], [], "overlap at 198.51.100.30"),
        (["198.51.100.7", "198.51.100.7"], [], "overlap at 198.51.100.7"),
        (["198.51.100.0/24"], ["203.0.113.7"], "'203.0.113.7' is not in spec.addresses"),
        (["198.51.100.7"], ["198.51.100.0/24"], "exclude less"),
        (["10.0.0.0/16", "10.1.0.0/16"], [], f"at most {MAX_ADDRESSES}"),
        (["2001:db8::/64"], [], f"at most {MAX_ADDRESSES}"),
        (["198.51.100.7", "198.51.100.x"], [], "spec.addresses: '198.51.100.x'"),
        (["198.51.100.0/24"], ["198.51.100.7/24"], "spec.exclude: '198.51.100.7/24'"),
    ],
)
def test_a_pool_that_cannot_be_meant_is_refused_naming_field_and_remedy(
    addresses: list[str], exclude: list[str], message: str
) -> None:
    with pytest.raises(AddressError) as caught:
        PoolAddresses.parse(addresses, exclude)
    assert message in str(caught.value)


@pytest.mark.parametrize("case", [case for case in GOOD if case.kind == POOL], ids=lambda case: str(case.spec)[:60])
def test_the_operator_takes_the_addresses_that_the_api_server_takes(case: Good) -> None:
    pool = PoolAddresses.parse(case.spec["addresses"], case.spec.get("exclude", ()))
    assert pool.count(4) + pool.count(6)


@pytest.mark.parametrize("case", ADDRESS_CASES, ids=lambda case: str(case.spec)[:60])
def test_the_operator_refuses_the_addresses_that_the_api_server_refuses(case: Bad) -> None:
    with pytest.raises(AddressError):
        PoolAddresses.parse(case.spec["addresses"], case.spec.get("exclude", ()))


def test_the_largest_pool_is_walked_without_being_written_out() -> None:
    pool = PoolAddresses.parse(["2001:db8::1-2001:db8::1:0"])
    assert pool.count(6) == MAX_ADDRESSES
    assert list(islice(pool.of_family(6), 2)) == [IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2")]


def test_one_address_is_read_as_strictly_as_an_entry() -> None:
    assert parse_address("198.51.100.7") == IPv4Address("198.51.100.7")
    with pytest.raises(AddressError):
        parse_address("198.51.100.7/32")
